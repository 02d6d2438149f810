"""The fast convolution is `lax.conv_general_dilated`: to the bit, on small integers, whose sums are exact."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from train.network.convolution import SHIFTS, WINOGRAD_FEATURES, convolution_for, convolve

NHWC = ("NHWC", "HWIO", "NHWC")
KERNELS = [(1, 1), (3, 3), (5, 3), (2, 4)]
PADDINGS = ["VALID", "SAME", "SAME_LOWER", [(0, 0), (0, 0)], [(2, 0), (1, 3)]]


def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def with_gradients(convolution, images, kernel, padding):
    """The result, and the gradients for a cotangent of small integers."""

    @jax.jit
    def all_three(x, k):
        y, pull_back = jax.vjp(lambda x, k: convolution(x, k, (1, 1), padding, dimension_numbers=NHWC), x, k)
        return y, *pull_back(integers(*y.shape, seed=2))

    return all_three(images, kernel)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("size", KERNELS, ids=str)
def test_values_and_gradients_are_those_of_lax(size, padding):
    images, kernel = integers(2, 7, 6, 3), integers(*size, 3, 4, seed=1)
    program = jax.make_jaxpr(lambda x, k: convolve(x, k, (1, 1), padding, dimension_numbers=NHWC))(images, kernel)
    assert ("dot_general" in str(program)) == (size[0] * size[1] * 3 > SHIFTS)
    assert "conv_general_dilated" not in str(program)
    expected = with_gradients(lax.conv_general_dilated, images, kernel, padding)
    actual = with_gradients(convolve, images, kernel, padding)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("size", [(13, 13), (4, 5), (3, 3)], ids=str)
def test_winograds_products_give_the_same(size, padding):
    """Halves of small integers are exact, too."""
    wide = WINOGRAD_FEATURES
    images, kernel = integers(2, *size, wide), integers(3, 3, wide, wide + 1, seed=1)
    ours = partial(convolve, window_strides=(1, 1), padding=padding, dimension_numbers=NHWC)
    assert str(jax.make_jaxpr(ours)(images, kernel)).count("dot_general") == 16
    assert str(jax.make_jaxpr(ours)(images, kernel[..., :-2])).count("dot_general") == 1
    narrow = images.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert str(jax.make_jaxpr(ours)(*narrow)).count("dot_general") == 1
    expected = with_gradients(lax.conv_general_dilated, images, kernel, padding)
    actual = with_gradients(convolve, images, kernel, padding)
    for each, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(each, other)


def test_winograds_products_round_as_little_as_sums_of_tiles_do():
    """Against float64: four roundings of the entries of a tile, of up to four times their size, and a sum's."""
    random = np.random.default_rng(0)
    images: Any = random.normal(size=(4, 13, 13, 32))
    kernel: Any = random.normal(size=(3, 3, 32, 64))
    with jax.enable_x64(True):
        exact, sizes = (
            np.asarray(lax.conv_general_dilated(*pair, (1, 1), "VALID", dimension_numbers=NHWC))
            for pair in ((images, kernel), (abs(images), abs(kernel)))
        )
        arrays: Any = images.astype(np.float32), kernel.astype(np.float32)
    actual = convolve(arrays[0], arrays[1], (1, 1), "VALID", dimension_numbers=NHWC)
    assert np.all(abs(actual - exact) <= 16 * np.finfo(np.float32).eps * sizes)


def test_the_gradient_of_few_entries_is_one_product():
    """Of nine shifts it would be nine passes over the cotangent."""
    images: Any = integers(2, 7, 6, 1)
    kernel = integers(3, 3, 1, 4, seed=1)

    def loss(kernel):
        return convolve(images, kernel, (1, 1), "VALID", dimension_numbers=NHWC).sum()

    assert "dot_general" not in str(jax.make_jaxpr(loss)(kernel))
    assert str(jax.make_jaxpr(jax.grad(loss))(kernel)).count("dot_general") == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_a_sum_of_shifts_is_rounded_once(dtype):
    """Against float64: the roundings of both sums, ours in float32 at least, and one of the result."""
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        images, kernel = (jnp.asarray(random.normal(size=shape), dtype) for shape in ((2, 7, 6, 3), (3, 3, 3, 4)))
        wide = images.astype(float), kernel.astype(float)
        exact, sizes = (
            lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=NHWC)
            for x, k in (wide, (abs(wide[0]), abs(wide[1])))
        )
        actual = convolve(images, kernel, (1, 1), "VALID", dimension_numbers=NHWC)
        summed = jnp.finfo(jnp.promote_types(dtype, jnp.float32)).eps
        assert actual.dtype == dtype
        assert jnp.all(abs(actual - exact) <= 2 * 27 * summed * sizes + jnp.finfo(dtype).eps * abs(exact))


@pytest.mark.parametrize(
    ("strides", "options"),
    [
        ((2, 2), {}),
        ((1, 2), {}),
        ((1, 1), {"lhs_dilation": (2, 1)}),
        ((1, 1), {"rhs_dilation": (1, 2)}),
        ((1, 1), {"feature_group_count": 2}),
        ((1, 1), {"batch_group_count": 2}),
        ((1, 1), {"dimension_numbers": ("NHWC", "HWIO", "NCHW")}),
    ],
    ids=["stride 2", "stride 1×2", "input dilation", "kernel dilation", "groups", "batch groups", "layout"],
)
@pytest.mark.parametrize("padding", ["VALID", "SAME", [(2, 0), (1, 3)]], ids=str)
def test_what_no_fast_form_serves_is_left_to_lax(strides, options, padding):
    if "lhs_dilation" in options and isinstance(padding, str):
        padding = [(1, 1), (1, 1)]  # lax itself refuses words here
    groups = options.get("feature_group_count", 1)
    images, kernel = integers(2, 7, 6, 4), integers(3, 3, 4 // groups, 6, seed=1)
    options = {"dimension_numbers": NHWC, **options}
    ours, theirs = (
        jax.make_jaxpr(lambda x, k, f=convolution: f(x, k, strides, padding, **options))(images, kernel)
        for convolution in (convolve, lax.conv_general_dilated)
    )
    assert str(ours) == str(theirs)  # the same program, not just the same numbers
    assert "conv_general_dilated" in str(ours)


def test_a_flax_convolution_takes_it():
    images = integers(2, 7, 6, 3)
    options = {
        "features": 4,
        "kernel_size": (3, 3),
        "kernel_init": lambda _, shape, __: jnp.asarray(integers(*shape, seed=1)),
    }
    for dtype in (jnp.float32, jnp.bfloat16):
        ours = nn.Conv(**options, dtype=dtype, conv_general_dilated=convolve)
        theirs = nn.Conv(**options, dtype=dtype)
        (y, variables), (expected, _) = (each.init_with_output(jax.random.key(0), images) for each in (ours, theirs))
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.astype(jnp.float32), expected.astype(jnp.float32))
        assert jax.tree.map(jnp.shape, variables) == {"params": {"kernel": (3, 3, 3, 4), "bias": (4,)}}


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("cpu", convolve),
        ("gpu", lax.conv_general_dilated),
        ("cuda", lax.conv_general_dilated),
        ("tpu", lax.conv_general_dilated),
    ],
)
def test_each_platform_gets_the_convolution_that_is_fast_there(platform, expected):
    assert convolution_for(platform) is expected
