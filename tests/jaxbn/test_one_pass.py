"""On a CPU, both sums of the statistics take one pass over x, and both of the backward pass where that pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from benchmarks.compiled.traffic import traffic
from jaxbn import _about, _normalize
from jaxbn._one_pass import Cut, both_summed, cut, line

DEVICES = 8  # see conftest

CUTS = {
    "rows, which devices may divide": ((64, 26, 26, 32), (0, 1, 2), Cut(0, 8)),
    "columns": ((32, 26, 28, 32), (0, 1, 2), Cut(2, 7)),
    "lines, where columns are short": ((60, 28, 28, 1), (0, 1, 2), Cut(1, 7)),
    "channels first": ((6, 32, 30, 16), (0, 2, 3), Cut(2, 6)),
    "time": ((3, 1000, 24), (0, 1), Cut(1, 8)),
    "too few rows for each device": ((24, 2048), (0,), None),
    "no divisor": ((37, 1024), (0,), None),
    "entries of a channel side by side": ((64, 1024), (1,), None),
    "a small array": ((8, 8, 8, 16), (0, 1, 2), None),
}


@pytest.mark.parametrize(("shape", "axes", "expected"), CUTS.values(), ids=CUTS)
def test_x_is_cut_where_the_rows_are_long(shape, axes, expected):
    assert jax.device_count() == DEVICES
    assert cut(jnp.zeros(shape), axes) == expected


def test_complex_x_is_not_cut():
    assert cut(jnp.zeros((64, 26, 26, 32), jnp.complex64), (0, 1, 2)) is None


@pytest.mark.parametrize(
    ("dtype", "masked", "together"),
    [("float32", False, True), ("float32", True, True), ("bfloat16", False, False), ("bfloat16", True, True)],
)
def test_statistics_of_a_narrower_x_take_one_pass_with_a_mask_only(dtype, masked, together, monkeypatch):
    """Without a mask, each fast sum converts x by itself."""
    calls = []
    monkeypatch.setattr(_about, "both_summed", lambda *args: calls.append(args) or both_summed(*args))
    x = jnp.zeros((64, 26, 13, 8), dtype)
    jax.eval_shape(lambda x: jaxbn.moments(x, mask=x > 0 if masked else None), x)
    assert bool(calls) is together


@pytest.mark.parametrize(("shape", "axes", "by"), [case for case in CUTS.values() if case[2]])
@pytest.mark.parametrize("pieces", [None, 1, 2])
def test_each_entry_counts_once_in_each_sum(shape, axes, by, pieces):
    """Whole numbers, whose sums are exact in any order."""
    x = np.random.default_rng(0).integers(-8, 8, shape).astype(np.float32)
    weights = np.random.default_rng(1).integers(0, 3, (shape[0], *(1,) * (len(shape) - 1))).astype(np.float32)
    by = by if pieces is None else by._replace(pieces=pieces)
    first, second = jax.jit(lambda *arrays: both_summed(lambda x, w: (w * x, w * x * x), arrays, axes, by))(x, weights)
    np.testing.assert_array_equal(first, (weights * x).sum(axes))
    np.testing.assert_array_equal(second, (weights * x * x).sum(axes))


@pytest.mark.parametrize(("shape", "axis"), [((64, 26, 26, 32), -1), ((8, 32, 28, 28), 1), ((1024, 128), -1)])
@pytest.mark.parametrize("masked", [False, True])
def test_little_is_moved_besides_reading_x_once(shape, axis, masked):
    """The partial sums, of 2/8 or 2/7 of the size of x, are written and read."""
    mask = jnp.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1)) < shape[0] - 2 if masked else None
    x = jnp.zeros(shape)
    program = jax.jit(lambda x: jaxbn.moments(x, axis=axis, mask=mask)).lower(x).compile()
    assert 1 < traffic(program.as_text() or "").bytes / x.nbytes < 1.6


@pytest.mark.parametrize(("shape", "axes", "by"), [case for case in CUTS.values() if case[2]])
@pytest.mark.parametrize("pieces", [None, 1, 2])
def test_a_line_and_the_two_sums_of_its_transpose(shape, axes, by, pieces):
    """Whole numbers, whose sums are exact in any order."""
    x, g = (np.random.default_rng(seed).integers(-8, 8, shape).astype(np.float32) for seed in (0, 1))
    slope, intercept = np.random.default_rng(2).integers(-8, 8, (2, *np.delete(shape, axes))).astype(np.float32)
    by = by if pieces is None else by._replace(pieces=pieces)
    y, transpose = jax.vjp(jax.jit(lambda a, b: line(a, b, jnp.asarray(x), axes, by)), slope, intercept)
    np.testing.assert_array_equal(y, np.expand_dims(slope, axes) * x + np.expand_dims(intercept, axes))
    of_slope, of_intercept = jax.jit(transpose)(g)
    np.testing.assert_array_equal(of_slope, (g * x).sum(axes))
    np.testing.assert_array_equal(of_intercept, g.sum(axes))


FORMS = {
    "norm": ("bfloat16", False, {}),
    "norm, masked": ("bfloat16", True, {}),
    "norm + relu": ("float32", False, {"activation": "relu"}),
    "norm + relu, masked": ("float32", True, {"activation": "relu"}),
    "norm + relu, bfloat16": ("bfloat16", False, {"activation": "relu"}),
    "norm + silu, bfloat16": ("bfloat16", False, {"activation": "silu"}),
    "norm + residual + relu, bfloat16": ("bfloat16", False, {"activation": "relu", "residual": True}),
    "norm + residual + relu, masked, bfloat16": ("bfloat16", True, {"activation": "relu", "residual": True}),
}
SHAPE = (16, 16, 16, 16)


def layer(dtype, masked, residual=False, **options):
    """A layer of (params, x, residual), and arguments for it."""
    rng = np.random.default_rng(0)
    x, other = (jnp.asarray(rng.normal(size=SHAPE), dtype) for _ in range(2))
    params, state = jaxbn.init(SHAPE[-1])
    params = params._replace(scale=jnp.asarray(rng.normal(size=SHAPE[-1]), jnp.float32))
    mask = jnp.arange(SHAPE[0]).reshape(-1, 1, 1, 1) < SHAPE[0] - 3 if masked else None

    def apply(params, x, other):
        added = other if residual else None
        return jaxbn.batch_norm(params, state, x, train=True, mask=mask, residual=added, **options)[0]

    return apply, (params, x, other)


@pytest.mark.parametrize(("dtype", "masked", "options"), FORMS.values(), ids=FORMS)
def test_gradients_are_those_of_separate_sums(dtype, masked, options, monkeypatch):
    """The sums round differently, at most 12 times in a row, each time by 2⁻²⁴ of what has been added up.

    This is at most 4,096 terms of size 1 on average. Other results round by 2⁻²⁴ of the largest entry, as often at
    most. What is stored in bfloat16 may also fall to the neighbour.
    """
    apply, args = layer(dtype, masked, **options)
    g = jnp.asarray(np.random.default_rng(3).normal(size=SHAPE), dtype)
    rng = np.random.default_rng(4)
    tangents = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), args)

    def derivatives(*args):
        return jax.vjp(apply, *args)[1](g), jax.jvp(apply, args, tangents)[1]

    found = jax.jit(derivatives)(*args)
    calls = []
    monkeypatch.setattr(_normalize, "cut", lambda *args: calls.append(args))
    jax.clear_caches()
    expected = jax.jit(derivatives)(*args)
    jax.clear_caches()
    assert calls
    for ours, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        stored = 2.0**-7 if ours.dtype == jnp.bfloat16 else 0.0
        a, b = (np.asarray(each, np.float32) for each in (ours, other))
        most = 12 * 2.0**-24 * (4096 if a.ndim == 1 else abs(b).max())
        assert (abs(a - b) <= most + stored * abs(b)).all(), abs(a - b).max()


@pytest.mark.parametrize(("dtype", "options"), [("float32", {"activation": "relu"}), ("bfloat16", {})])
def test_gradients_under_vmap_and_of_sharded_arrays(dtype, options):
    apply, (params, x, other) = layer(dtype, False, **options)
    xs = jnp.stack([x, 2 * x])

    def gradients(params, x):
        return jax.grad(lambda params, x: (apply(params, x, other).astype(jnp.float32) ** 3).sum(), (0, 1))(params, x)

    mesh = jax.make_mesh((DEVICES,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    together = jax.jit(jax.vmap(gradients, (None, 0)))(params, xs)
    for i, each in enumerate(xs):
        alone = jax.jit(gradients)(params, each)
        sharded = jax.jit(gradients)(params, jax.device_put(each, rows))
        for found in (jax.tree.map(lambda leaf, i=i: leaf[i], together), sharded):
            for pair in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
                a, b = (np.asarray(each, np.float32) for each in pair)
                np.testing.assert_allclose(a, b, rtol=2.0**-7, atol=2.0**-16 * np.abs(b).max())


PASSES = {  # over x: 1.5 or 2 for the statistics, 2.5 for the sums of the backward pass, 3 for the gradient of x
    ("float32", "relu", False): 7.2,
    ("float32", "relu", True): 9.1,
    ("bfloat16", None, False): 8.2,
    ("bfloat16", "relu", False): 8.2,
    ("bfloat16", None, True): 17.2,
}


@pytest.mark.parametrize(("shape", "axis"), [((64, 26, 26, 32), -1), ((8, 32, 28, 28), 1), ((1024, 128), -1)])
@pytest.mark.parametrize(("dtype", "activation", "masked"), PASSES)
def test_the_backward_pass_writes_no_cotangent(dtype, activation, masked, shape, axis):
    params, state = jaxbn.init(shape[axis])
    mask = jnp.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1)) < shape[0] - 2 if masked else None
    x = jnp.zeros(shape, dtype)

    def apply(params, x):
        return jaxbn.batch_norm(params, state, x, train=True, axis=axis, activation=activation, mask=mask)[0]

    def gradients(params, x, g):
        return jax.vjp(apply, params, x)[1](g)

    program = jax.jit(gradients).lower(params, x, x).compile()
    assert traffic(program.as_text() or "").bytes / x.nbytes < PASSES[dtype, activation, masked]
