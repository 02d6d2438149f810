"""A folded layer beside the layer and the norm: the same function, in every layout of a kernel."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close

from jaxbn import BatchNormParams, BatchNormState, batch_norm, fold, fold_into_next, init

EPSILON = 1e-3


def norm_of(features, seed=0, dtype="float64", mean=1.0) -> tuple[Any, BatchNormState]:
    rng = np.random.default_rng(seed)
    scale, bias = (jnp.asarray(rng.normal(1, 0.5, features), dtype) for _ in range(2))
    state = BatchNormState(
        jnp.asarray(mean + rng.normal(size=features), dtype),
        jnp.asarray(rng.uniform(0.3, 3, features), dtype),
        jnp.asarray(3, jnp.int32),
    )
    return BatchNormParams(scale, bias), state


def draw(shape, seed=1, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def evaluated(norm, x, axis: Any = -1):
    params, state = norm
    return batch_norm(params, state, x, False, axis=axis, epsilon=EPSILON)[0]


def dense(x, kernel):
    return x @ kernel


def convolution(x, kernel, form=("NHWC", "HWIO", "NHWC"), strides=(1, 1), padding="SAME", **options):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=form, **options)


NCHW = ("NCHW", "OIHW", "NCHW")
FOLDS = {  # the layer, the shapes of x and of the kernel, the kernel's output axis, the output's feature axis
    "dense": (dense, (5, 3), (3, 4), -1, -1),
    "HWIO": (convolution, (2, 6, 5, 3), (3, 2, 3, 4), -1, -1),
    "HWIO, axis from the front": (partial(convolution, padding="VALID"), (2, 6, 5, 3), (3, 2, 3, 4), 3, -1),
    "OIHW": (partial(convolution, form=NCHW, strides=(2, 1)), (2, 3, 6, 5), (4, 3, 3, 2), 0, 1),
    "dilated": (partial(convolution, rhs_dilation=(2, 2)), (2, 7, 6, 3), (3, 2, 3, 4), -1, -1),
    "HWIO, groups": (partial(convolution, feature_group_count=2), (2, 6, 5, 4), (3, 2, 2, 6), -1, -1),
    "OIHW, groups": (partial(convolution, form=NCHW, feature_group_count=2), (2, 4, 6, 5), (6, 2, 3, 2), 0, 1),
    "depthwise": (partial(convolution, feature_group_count=3), (2, 6, 5, 3), (3, 3, 1, 6), -1, -1),
    "transposed": (partial(jax.lax.conv_transpose, strides=(2, 2), padding="SAME"), (2, 4, 3, 3), (3, 3, 3, 4), -1, -1),
    "transposed as a gradient": (
        partial(jax.lax.conv_transpose, strides=(2, 2), padding="VALID", transpose_kernel=True),
        (2, 4, 3, 3), (3, 3, 4, 3), -2, -1,
    ),
}  # fmt: skip


def grouped_transposed(x, kernel, groups=2):
    """PyTorch's transposed convolution: NCHW with a kernel (in, out/groups, h, w)."""
    form = ("NCHW", "IOHW", "NCHW")
    parts = zip(jnp.split(x, groups, 1), jnp.split(kernel, groups, 0), strict=True)
    return jnp.concatenate(
        [jax.lax.conv_transpose(part, k, (2, 2), "VALID", dimension_numbers=form) for part, k in parts], 1
    )


def along(vector, axis, ndim):
    shape = np.ones(ndim, int)
    shape[axis] = -1
    return vector.reshape(shape)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(("layer", "x", "kernel", "axis", "features"), FOLDS.values(), ids=FOLDS)
def test_fold(layer, x, kernel, axis, features, with_bias):
    x, kernel = draw(x), draw(kernel, seed=2)
    c = kernel.shape[axis]
    norm, bias = norm_of(c), draw(c, seed=3) if with_bias else None
    y = layer(x, kernel) + (along(bias, features, x.ndim) if bias is not None else 0)
    folded, new_bias = fold(*norm, kernel, bias, epsilon=EPSILON, kernel_axis=axis)
    assert (folded.shape, new_bias.shape) == (kernel.shape, (c,))
    result = layer(x, folded) + along(new_bias, features, x.ndim)
    assert_close(result, evaluated(norm, y, features))


@pytest.mark.usefixtures("x64")
def test_fold_of_a_transposed_convolution_with_groups():
    """The outputs of group g are at kernel[g · in/groups :, o]; one more axis separates the groups."""
    x, kernel, norm = draw((2, 4, 3, 3)), draw((4, 3, 2, 2), seed=2), norm_of(6)
    params, state = jax.tree.map(lambda a: a.reshape(2, 3) if a.ndim else a, norm)
    folded, bias = fold(params, state, kernel.reshape(2, 2, 3, 2, 2), epsilon=EPSILON, kernel_axis=(0, 2))
    result = grouped_transposed(x, folded.reshape(kernel.shape)) + along(bias, 1, 4)
    assert_close(result, evaluated(norm, grouped_transposed(x, kernel), 1))


@pytest.mark.usefixtures("x64")
def test_fold_of_several_feature_axes():
    """Heads and their features, in either layout of the kernel."""
    x, kernel, norm = draw((7, 3)), draw((3, 2, 4), seed=2), norm_of((2, 4))
    expected = evaluated(norm, jnp.einsum("ni,ihd->nhd", x, kernel), (-2, -1))
    folded, bias = fold(*norm, kernel, epsilon=EPSILON, kernel_axis=(1, 2))
    assert_close(jnp.einsum("ni,ihd->nhd", x, folded) + bias[None], expected)
    swapped, same_bias = fold(*norm, kernel.swapaxes(1, 2), epsilon=EPSILON, kernel_axis=(-1, -2))
    np.testing.assert_array_equal(swapped.swapaxes(1, 2), folded)
    np.testing.assert_array_equal(same_bias, bias)


NEXTS = {  # the layer, the shapes of x and of the kernel, the norm's axis, the kernel's axes, groups
    "dense": (dense, (5, 3), (3, 4), -1, {}),
    "HWIO": (partial(convolution, padding="VALID"), (2, 6, 5, 3), (3, 2, 3, 4), -1, {}),
    "OIHW, strides": (
        partial(convolution, form=NCHW, padding="VALID", strides=(2, 2)),
        (2, 3, 6, 5), (4, 3, 3, 2), 1, {"kernel_input_axis": 1, "kernel_axis": 0},
    ),
    "HWIO, groups": (
        partial(convolution, padding="VALID", feature_group_count=2),
        (2, 6, 5, 4), (3, 2, 2, 6), -1, {"feature_group_count": 2},
    ),
    "OIHW, groups": (
        partial(convolution, form=NCHW, padding="VALID", feature_group_count=2),
        (2, 4, 6, 5), (6, 2, 3, 2), 1, {"kernel_input_axis": 1, "kernel_axis": 0, "feature_group_count": 2},
    ),
    "depthwise": (
        partial(convolution, padding="VALID", feature_group_count=3),
        (2, 6, 5, 3), (3, 3, 1, 6), -1, {"feature_group_count": 3},
    ),
}  # fmt: skip


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(("layer", "x", "kernel", "features", "options"), NEXTS.values(), ids=NEXTS)
def test_fold_into_next(layer, x, kernel, features, options, with_bias):
    x, kernel = draw(x), draw(kernel, seed=2)
    c, outputs = x.shape[features], kernel.shape[options.get("kernel_axis", -1)]
    norm, bias = norm_of(c), draw(outputs, seed=3) if with_bias else None
    expected = layer(evaluated(norm, x, features), kernel) + (0 if bias is None else along(bias, features, x.ndim))
    folded, new_bias = fold_into_next(*norm, kernel, bias, epsilon=EPSILON, **options)
    assert (folded.shape, new_bias.shape) == (kernel.shape, (outputs,))
    result = layer(x, folded) + along(new_bias, features, x.ndim)
    assert_close(result, expected, condition=10)


@pytest.mark.usefixtures("x64")
def test_fold_into_next_through_a_flattening():
    x, kernel, norm = draw((2, 3, 3, 4)), draw((36, 5), seed=2), norm_of(4)
    folded, bias = fold_into_next(*norm, kernel.reshape(9, 4, 5), epsilon=EPSILON)
    expected = evaluated(norm, x).reshape(2, -1) @ kernel
    assert_close(x.reshape(2, -1) @ folded.reshape(kernel.shape) + bias[None], expected, condition=10)


@pytest.mark.usefixtures("x64")
def test_fold_into_a_padded_convolution_differs_at_the_border_only():
    """The warning of the docstring, and its remedy: padding with the input whose normalised value is zero."""
    x, kernel, norm = draw((2, 6, 5, 3)), draw((3, 3, 3, 4), seed=2), norm_of(3)
    params, state = norm
    expected = convolution(evaluated(norm, x), kernel)
    folded, bias = fold_into_next(*norm, kernel, epsilon=EPSILON)
    wrong = convolution(x, folded) + along(bias, -1, 4)
    assert_close(wrong[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], condition=10)
    assert np.abs(wrong - expected)[:, 0].min(-1).max() > 0.1
    value = state.mean - params.bias / params.scale * jnp.sqrt(state.var + EPSILON)
    padded = jnp.full((2, 8, 7, 3), value[None, None, None]).at[:, 1:-1, 1:-1].set(x)
    right = convolution(padded, folded, padding="VALID") + along(bias, -1, 4)
    assert_close(right, expected, condition=10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("missing", [("scale",), ("bias",), ("scale", "bias")], ids=" and ".join)
def test_without_scale_or_bias(missing):
    params, state = norm_of(4)
    full = params._replace(**{name: {"scale": jnp.ones(4), "bias": jnp.zeros(4)}[name] for name in missing})
    params = params._replace(**dict.fromkeys(missing))
    kernel = draw((4, 4))
    for function in (fold, fold_into_next):
        for ours, same in zip(
            function(params, state, kernel, epsilon=EPSILON),
            function(full, state, kernel, epsilon=EPSILON),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, same)


def exact_fold(params, state, kernel, bias):
    """The folded layer in float64 NumPy."""
    scale, offset, mean, var, kernel, bias = map(oracle.wide, (*params, state.mean, state.var, kernel, bias))
    m = scale / np.sqrt(var + EPSILON)
    return kernel * m, offset + (bias - mean) * m


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
def test_float32_rounding_is_the_only_error(mean, jitted):
    """A bias close to a large mean cancels it: the difference is exact, not (b·m) − (μ·m)."""
    norm = norm_of(64, dtype="float32", mean=mean)
    kernel, bias = draw((3, 64), dtype="float32"), mean + draw((64,), seed=3, dtype="float32")
    folding = jax.jit(partial(fold, epsilon=EPSILON)) if jitted else partial(fold, epsilon=EPSILON)
    folded, new_bias = folding(*norm, kernel, bias)
    exact, exact_bias = exact_fold(*norm, kernel, bias)
    assert_close(folded, exact)
    m = np.abs(exact / oracle.wide(kernel)).max(0)
    size = np.abs(oracle.wide(norm[0].bias)) + np.abs(oracle.wide(bias) - oracle.wide(norm[1].mean)) * m
    assert np.max(np.abs(new_bias - exact_bias) / size) < 5e-7


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    norm = norm_of(16, dtype="float32")
    kernel, bias = draw((3, 16), dtype=dtype), draw((16,), seed=3, dtype=dtype)
    wide = fold(*norm, kernel.astype(jnp.float32), bias.astype(jnp.float32), epsilon=EPSILON)
    half = fold(*norm, kernel, bias, epsilon=EPSILON)
    for a, b in zip(half, wide, strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b.astype(dtype))
    assert fold(*norm, kernel, epsilon=EPSILON)[1].dtype == dtype
    assert [a.dtype for a in fold_into_next(*norm, draw((16, 3), dtype=dtype), epsilon=EPSILON)] == [dtype, dtype]


def test_a_float32_bias_beside_a_half_kernel_stays_float32():
    norm, kernel = norm_of(4, dtype="float32"), draw((3, 4), dtype="bfloat16")
    assert [a.dtype.name for a in fold(*norm, kernel, jnp.zeros(4), epsilon=EPSILON)] == ["bfloat16", "float32"]


@pytest.mark.usefixtures("x64")
def test_complex():
    params, state = norm_of(4)
    state = state._replace(mean=jax.lax.complex(state.mean, draw((4,))))
    x, kernel = (jax.lax.complex(draw(shape, seed=2), draw(shape, seed=5)) for shape in ((5, 3), (3, 4)))
    folded, bias = fold(params, state, kernel, epsilon=EPSILON)
    assert_close(x @ folded + bias[None], evaluated((params, state), x @ kernel))
    with pytest.raises(TypeError, match="kernel must be complex to be folded with a complex norm; got float64"):
        fold(params, state, kernel.real, epsilon=EPSILON)


def test_stacked_layers_fold_under_vmap():
    params, state = jax.tree.map(lambda *a: jnp.stack(a), norm_of(4, 0, "float32"), norm_of(4, 1, "float32"))
    kernels = draw((2, 3, 4), dtype="float32")
    folded, bias = jax.vmap(partial(fold, epsilon=EPSILON))(params, state, kernels)
    first, first_bias = fold(*norm_of(4, 0, "float32"), kernels[0], epsilon=EPSILON)
    assert_close(folded[0], first)
    assert_close(bias[0], first_bias)


GOOD = {"params": init(4)[0], "state": init(4)[1], "kernel": jnp.ones((3, 4)), "bias": None}
WRONG = [
    (fold, {"kernel": np.ones((4, 3), np.float32)}, ValueError,
     r"features of shape \(4,\), and kernel_axis \(1,\).* has \(3"),
    (fold, {"kernel_axis": 0}, ValueError, r"kernel_axis \(0,\) of the kernel of shape \(3, 4\) has \(3,\)"),
    (fold, {"kernel_axis": 2}, ValueError, r"kernel_axis must name axes of the kernel, each once.* from -2 to 1"),
    (fold, {"kernel_axis": (1, -1)}, ValueError, "each once"),
    (fold, {"bias": np.ones(3, np.float32)}, ValueError, r"bias must have .* \(4,\); got \(3,\)"),
    (fold, {"kernel": np.ones((3, 4), np.int8)}, TypeError, "kernel must be floating or complex; got int8"),
    (fold, {"bias": np.ones(4, np.int32)}, TypeError, "bias must be floating or complex; got int32"),
    (fold, {"state": None}, TypeError, "state must be a jaxbn.BatchNormState.*got None.*running"),
    (fold, {"params": (None, None)}, TypeError, "params must be a jaxbn.BatchNormParams"),
    (fold, {"params": BatchNormParams(jnp.ones(3), None)}, ValueError, r"params.scale must have .*\(4,\); got \(3,\)"),
    (fold, {"epsilon": -1.0}, ValueError, "epsilon must be finite and at least 0"),
    (fold_into_next, {}, ValueError, r"kernel_input_axis \(0,\) of the kernel of shape \(3, 4\) has \(3,\)"),
    (fold_into_next, {"kernel": np.ones((4, 2), np.float32), "bias": np.ones(4, np.float32)}, ValueError,
     r"the kernel's outputs, \(2,\); got \(4,\)"),
    (fold_into_next, {"kernel": np.ones((2, 2), np.float32)}, ValueError, r"has \(2,\)"),
    (fold_into_next, {"kernel": np.ones((2, 3), np.float32), "feature_group_count": 2}, ValueError,
     "one output axis whose size it divides"),
    (fold_into_next, {"feature_group_count": 2}, ValueError, r"has \(3,\) in each of 2 groups"),
    (fold_into_next, {"feature_group_count": 0}, ValueError, "must be a positive integer; got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "changed", "error", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_what_is_wrong_is_said(function, changed, error, message):
    arguments = {**GOOD, "epsilon": EPSILON, **changed}
    with pytest.raises(error, match=message):
        function(**arguments)
