"""Convolution as matrix products over patches: how a CPU does it fast.

Inside a loop, XLA on CPU runs a convolution 8 to 18 times slower than outside (jax issue 12868); matrix products do not
suffer, and a scanned epoch spares the allocation of every step's temporaries. On GPU and TPU `lax` is right.

Many images go through a loop, a few at a time. Their patches then stay in the cache, and are made again for the
backward pass rather than kept; and what a loop takes and gives is computed once, where XLA would compute it again in
each of the nine slices that patches consist of (the pooling in front) and in each consumer of the nine that are added
up again (the input's gradient).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Convolution = Callable[..., jax.Array]

WHOLE_BYTES = 2**22  # of patches that are made at once, without a loop
LOOP_BYTES = 2**20  # of the patches of those images that are in the loop at a time: about what a core's cache holds


def convolution_for(platform: str) -> Convolution:
    """The convolution for `flax.linen.Conv(conv_general_dilated=...)` that is fast on a platform ("cpu", "gpu", …)."""
    return convolve_by_patches if platform == "cpu" else lax.conv_general_dilated


def convolve_by_patches(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,  # noqa: ANN401  (passed on as they are)
) -> jax.Array:
    """`lax.conv_general_dilated` of NHWC images with an HWIO kernel, as a matrix product; other forms go to `lax`.

    Args:
        lhs: images (N, H, W, C).
        rhs: kernel (h, w, C, features).
        window_strides: strides.
        padding: "SAME", "VALID", or the zeros before and after H and W.
        **options: what else `lax.conv_general_dilated` takes; `precision` goes to the product.

    Returns:
        (N, H', W', features).

    """
    if not _is_plain(lhs, rhs, window_strides, padding, options):
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    pads = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], (1, 1), padding) if isinstance(padding, str) else padding
    lhs = jnp.pad(lhs, ((0, 0), *pads, (0, 0)))
    height, width = (lhs.shape[i + 1] - rhs.shape[i] + 1 for i in (0, 1))

    def convolve(images: jax.Array) -> jax.Array:
        slices = [images[:, i : i + height, j : j + width] for i in range(rhs.shape[0]) for j in range(rhs.shape[1])]
        return jnp.dot(
            jnp.concatenate(slices, axis=-1),
            rhs.reshape(-1, rhs.shape[-1]),
            precision=options.get("precision"),
            preferred_element_type=options.get("preferred_element_type"),
        )

    patch_bytes = height * width * math.prod(rhs.shape[:3]) * lhs.dtype.itemsize
    if lhs.shape[0] * patch_bytes <= WHOLE_BYTES:
        return convolve(lhs)
    images = _largest_divisor(lhs.shape[0], LOOP_BYTES // patch_bytes)
    groups = lhs.reshape(-1, images, *lhs.shape[1:])
    return lax.map(jax.checkpoint(convolve, prevent_cse=False), groups).reshape(-1, height, width, rhs.shape[-1])


def _largest_divisor(n: int, bound: int) -> int:
    """The largest divisor of n that is at most the bound; 1 at least.

    Example:
        >>> _largest_divisor(250, 7), _largest_divisor(61, 7), _largest_divisor(64, 7)
        (5, 1, 4)

    """
    return max(d for d in range(1, max(1, min(n, bound)) + 1) if n % d == 0)


def _is_plain(lhs: jax.Array, rhs: jax.Array, strides: Sequence[int], padding: Any, options: dict[str, Any]) -> bool:  # noqa: ANN401
    """Whether it is a 2-D convolution of NHWC with HWIO, without strides, dilations, groups or negative padding."""
    dilations = [options.get(name) or (1,) for name in ("lhs_dilation", "rhs_dilation")]
    groups = [options.get(name, 1) for name in ("feature_group_count", "batch_group_count")]
    if lhs.ndim != 4 or {*strides, *groups, *(d for dilation in dilations for d in dilation)} != {1}:
        return False
    if not isinstance(padding, str) and any(p < 0 for pair in padding for p in pair):
        return False
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, options.get("dimension_numbers"))
    return numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, ("NHWC", "HWIO", "NHWC"))
