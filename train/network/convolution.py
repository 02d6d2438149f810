"""Convolution in forms that are fast on CPUs: matrix products, or a sum of shifted images.

Inside a loop, XLA on CPU runs a convolution 8 to 18 times slower than outside (jax issue 12868); these forms do not
suffer, and a scanned epoch spares the allocation of every step's temporaries. On GPU and TPU `lax` is right.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from train.network import shifts, winograd

Convolution = Callable[..., jax.Array]

WINOGRAD_FEATURES = 32  # input and output features from which Winograd's algorithm is faster
SHIFTS = 27  # entries of the kernel of a feature up to which a sum of shifted images is faster


def convolution_for(platform: str) -> Convolution:
    """The fast convolution of a platform ("cpu", "gpu", …), for `flax.linen.Conv(conv_general_dilated=...)`."""
    return convolve if platform == "cpu" else lax.conv_general_dilated


def convolve(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,  # noqa: ANN401  (passed on as they are)
) -> jax.Array:
    """`lax.conv_general_dilated` of NHWC images with an HWIO kernel, in a fast form; what has none goes to `lax`.

    Args:
        lhs: images (N, H, W, C).
        rhs: kernel (h, w, C, features).
        window_strides: strides.
        padding: "SAME", "VALID", or the zeros before and after H and W.
        **options: further options of `lax.conv_general_dilated`; products use `precision`.

    Returns:
        (N, H', W', features).

    """
    if not _is_plain(lhs, rhs, window_strides, padding, options):
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    height, width, channels, features = rhs.shape
    pads = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], (1, 1), padding) if isinstance(padding, str) else padding
    lhs = jnp.pad(lhs, ((0, 0), *pads, (0, 0)))
    products = {name: options.get(name) for name in ("precision", "preferred_element_type")}
    if height * width * channels <= SHIFTS:
        return shifts.convolve(lhs, rhs, **products)
    exact = lhs.dtype == rhs.dtype == jnp.float32  # Winograd's sums of entries would round narrower types
    if (height, width) == (3, 3) and min(channels, features) >= WINOGRAD_FEATURES and exact:
        return winograd.convolve(lhs, rhs, **products)
    down, across = lhs.shape[1] - height + 1, lhs.shape[2] - width + 1
    slices = [lhs[:, i : i + down, j : j + across] for i in range(height) for j in range(width)]
    patches = jnp.concatenate(slices, axis=-1)
    rows = patches.reshape(-1, patches.shape[-1])
    product = jnp.dot(rows, rhs.reshape(-1, features), **products)
    return product.reshape(*patches.shape[:-1], features)


def _is_plain(lhs: jax.Array, rhs: jax.Array, strides: Sequence[int], padding: Any, options: dict[str, Any]) -> bool:  # noqa: ANN401
    """True if this is a 2-D convolution of NHWC with HWIO, without strides, dilations, groups or negative padding."""
    dilations = [options.get(name) or (1,) for name in ("lhs_dilation", "rhs_dilation")]
    groups = [options.get(name, 1) for name in ("feature_group_count", "batch_group_count")]
    if lhs.ndim != 4 or {*strides, *groups, *(d for dilation in dilations for d in dilation)} != {1}:
        return False
    if not isinstance(padding, str) and any(p < 0 for pair in padding for p in pair):
        return False
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, options.get("dimension_numbers"))
    return numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, ("NHWC", "HWIO", "NHWC"))
