"""A mask as weights, in units near the largest weight: sums of weights of any size neither overflow nor vanish.

Negative weights and NaN count as 0, infinity as the largest number. (Numbers below the smallest normal one, 1.2e-38 in
float32, are 0 on most processors.)
"""

import jax
import jax.numpy as jnp

from jaxbn._axes import expand
from jaxbn._dtypes import promote
from jaxbn._placement import like


def unit_of(mask: jax.Array, x: jax.Array, axes: tuple[int, ...]) -> jax.Array | None:
    """The unit of the weights along `axes`; None, which stands for 1, for bools and integers."""
    return power_of_two(_weights(mask, x), axes) if jnp.issubdtype(mask.dtype, jnp.floating) else None


def in_units(
    mask: jax.Array, unit: jax.Array | None, x: jax.Array, axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """The weights in units, and which entries count, both with the shape of `x`; from the mask as given."""
    w = _weights(mask, x)
    w = like(x, w if unit is None else w / expand(unit, axes))
    return w, like(x, mask if mask.dtype == bool else mask > 0)


def power_of_two(weights: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A power of two near the largest weight along `axes`, by which division is exact; 1 where all weights are 0."""
    info = jnp.finfo(weights.dtype)
    highest = jnp.minimum(jax.lax.reduce_max(weights, axes), 2.0 ** (info.maxexp - 2))
    return jnp.where(highest > 0, jax.lax.reduce_precision(highest, info.bits - info.nmant - 1, 0), 1)


def without_unit(weight: jax.Array, unit: jax.Array | None) -> jax.Array:
    """The total weight without the unit, at most the largest number of the type."""
    if unit is None:
        return weight
    return jnp.minimum(weight, jnp.finfo(weight.dtype).max / jnp.maximum(unit, 1)) * unit


def _weights(mask: jax.Array, x: jax.Array) -> jax.Array:
    dtype = promote(jnp.finfo(x.dtype).dtype)
    w = mask.astype(dtype)
    return w if mask.dtype == bool else jnp.where(w > 0, jnp.minimum(w, jnp.finfo(dtype).max), 0)
