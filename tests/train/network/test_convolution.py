"""The fast convolution is `lax.conv_general_dilated`: to the bit, on small integers, whose sums are exact."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from train.network import winograd
from train.network.convolution import SHIFTS, WINOGRAD_FEATURES, convolution_for, convolve

NHWC = ("NHWC", "HWIO", "NHWC")
KERNELS = [(1, 1), (3, 3), (5, 3), (2, 4)]
PADDINGS = ["VALID", "SAME", "SAME_LOWER", [(0, 0), (0, 0)], [(2, 0), (1, 3)]]


def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def with_gradients(convolution, images, kernel, padding, cotangent=np.asarray):
    """The result, and the gradients for a cotangent of small integers."""

    @jax.jit
    def all_three(x, k):
        y, pull_back = jax.vjp(lambda x, k: convolution(x, k, (1, 1), padding, dimension_numbers=NHWC), x, k)
        return y, *pull_back(cotangent(integers(*y.shape, seed=2)))

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


def is_winograds(images, kernel):
    """True if `convolve` takes products of tiles, 6 times 6 of them."""
    program = jax.make_jaxpr(partial(convolve, window_strides=(1, 1), padding="VALID", dimension_numbers=NHWC))
    return "([0, 1], [0, 1])" in str(program(images, kernel))


def test_winograds_algorithm_is_taken_for_many_features_in_float32():
    wide = WINOGRAD_FEATURES
    images, kernel = integers(2, 5, 5, wide), integers(3, 3, wide, wide)
    assert is_winograds(images, kernel)
    assert not is_winograds(images, kernel[..., 1:])
    assert not is_winograds(images[..., 1:], kernel[:, :, 1:])
    assert not is_winograds(images, kernel[:2])
    assert not is_winograds(images.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))


def replace_matrices(monkeypatch, matrices):
    for name, matrix in zip(("OF_TILES", "OF_KERNELS", "OF_PRODUCTS"), matrices, strict=True):
        monkeypatch.setattr(winograd, name, matrix)


@pytest.mark.parametrize("padding", [PADDINGS[0], PADDINGS[-1]], ids=str)
@pytest.mark.parametrize("size", [(13, 13), (4, 5), (3, 3)], ids=str)
def test_winograds_products_are_exact_up_to_roundings(size, padding, monkeypatch):
    """Against the exact result and gradients: a rounding for each operation on the way, of the numbers it may see.

    A number of the result is a sum of products, in four steps. The same steps with absolute values bound what each
    rounds. Along an axis, an entry of a tile takes a product and three sums, and one of the result a product and four
    sums. The transform of the kernel is a sum of up to 36 products, whose constants are rounded.
    """
    wide = WINOGRAD_FEATURES
    images, kernel = integers(2, *size, wide), integers(3, 3, wide, wide + 1, seed=1)
    exact = with_gradients(lax.conv_general_dilated, images, kernel, padding)
    actual = with_gradients(convolve, images, kernel, padding)
    replace_matrices(monkeypatch, [np.abs(matrix).tolist() for matrix in winograd.matrices(winograd.POINTS)])
    sizes = with_gradients(convolve, abs(images), abs(kernel), padding, np.abs)
    tiles = 2 * -(-exact[0].shape[1] // winograd.TILE) * -(-exact[0].shape[2] // winograd.TILE)
    roundings = 2 * (4 + 5) + (36 + 1) + max(wide + 1, tiles)
    for ours, theirs, bound in zip(actual, exact, sizes, strict=True):
        assert np.all(abs(ours - theirs) <= roundings * np.finfo(np.float32).eps / 2 * bound)


def test_winograds_points_round_less_than_those_of_the_paper(monkeypatch):
    random = np.random.default_rng(0)
    images: Any = random.normal(size=(4, 13, 13, 32))
    kernel: Any = random.normal(size=(3, 3, 32, 64))
    with jax.enable_x64(True):
        exact = np.asarray(lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=NHWC))

    def error():
        actual = winograd.convolve(images.astype(np.float32), kernel.astype(np.float32))
        return np.sqrt(np.mean((actual - exact) ** 2))

    ours = error()
    replace_matrices(monkeypatch, winograd.matrices((0, 1, -1, 2, -2)))
    assert ours < 0.7 * error()


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
