"""The elementwise half of batch normalization, with its derivative rule.

    y = (x − shift) · multiplier + offset

The tangent combines its vectors before it touches anything of the size of `x`:

    dy = dx · multiplier + (x − shift) · dmultiplier + (doffset − multiplier · dshift)

so that its transpose is two reductions, Σg and Σg·(x − shift), and one product. `jax.checkpoint` around it keeps `x`
and vectors for the backward pass, and nothing else of the size of `x`. See docs/math.md.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxbn._axes import expand
from jaxbn._copies import copy_above


def normalize(
    x: jax.Array, shift: jax.Array, multiplier: jax.Array, offset: jax.Array, axes: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    """(x − shift) · multiplier + offset, computed in the type of `shift`, returned as `dtype`.

    Args:
        x: any floating or complex array.
        shift: of the shape of the feature axes, as are `multiplier` and `offset`.
        multiplier: 1/σ times the scale.
        offset: the bias, less what remains of the mean times the multiplier.
        axes: the axes of `x` that are no feature axes.
        dtype: type of the result.

    """
    return _normalize(x, shift, multiplier, offset, axes, dtype)


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _normalize(
    x: jax.Array, shift: jax.Array, multiplier: jax.Array, offset: jax.Array, axes: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    centred = x.astype(shift.dtype) - expand(shift, axes)
    return (centred * expand(multiplier, axes) + expand(offset, axes)).astype(dtype)


@_normalize.defjvp
def _(axes: tuple[int, ...], dtype: jnp.dtype, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    x, shift, multiplier, offset = primals
    x_dot, shift_dot, multiplier_dot, offset_dot = tangents
    offset_dot = offset_dot - multiplier * shift_dot
    y_dot = _normalize_tangent(axes, dtype, x, shift, multiplier, x_dot, multiplier_dot, offset_dot)
    return _normalize(x, shift, multiplier, offset, axes, dtype), y_dot


@partial(jax.checkpoint, static_argnums=(0, 1))  # keeps x and vectors: the centred x is recomputed
def _normalize_tangent(
    axes: tuple[int, ...],
    dtype: jnp.dtype,
    x: jax.Array,
    shift: jax.Array,
    multiplier: jax.Array,
    x_dot: jax.Array,
    multiplier_dot: jax.Array,
    offset_dot: jax.Array,
) -> jax.Array:
    centred = x.astype(shift.dtype) - expand(copy_above(shift), axes)
    y_dot = x_dot.astype(shift.dtype) * expand(multiplier, axes) + centred * expand(multiplier_dot, axes)
    return (y_dot + expand(offset_dot, axes)).astype(dtype)
