"""Sums with small rounding errors, and the broadcast whose transpose they are.

Adding n numbers one after the other may lose up to n/2 roundings, and does so if the numbers are similar. Compilers add
large arrays and long axes in blocks. Small arrays with several short axes remain: they are summed here axis by axis,
with a barrier in between, since the compiler would join the sums again.
"""

import jax
import jax.numpy as jnp

from jaxbn._axes import expand, is_known, size

SMALL = 1 << 15  # entries


def summed(z: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The sums along `axes`."""
    if not _is_small(z, axes):
        return jnp.sum(z, axes)
    for axis in reversed(axes):
        z = jax.lax.optimization_barrier(jnp.sum(z, axis))
    return z


def averaged(total: jax.Array, weight: jax.Array) -> jax.Array:
    """A sum of weighted entries, divided by their weight; 0 where nothing has weight."""
    return total / jnp.where(weight > 0, weight, 1).astype(total.dtype)


def weighted_mean(z: jax.Array, w: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The total weight and the weighted mean along `axes`; both 0 where nothing has weight."""
    weight = summed(w, axes)
    return weight, averaged(summed(w.astype(z.dtype) * z, axes), weight)


def abs2(z: jax.Array) -> jax.Array:
    """|z|²."""
    return jnp.square(z.real) + jnp.square(z.imag) if jnp.iscomplexobj(z) else jnp.square(z)


def spread(vector: jax.Array, x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The vector in a shape that broadcasts to `x`; the transpose of this function is `summed`."""
    if not _is_small(x, axes):
        return expand(vector, axes)
    for axis in axes:
        shape = (*vector.shape[:axis], x.shape[axis], *vector.shape[axis:])
        vector = jax.lax.optimization_barrier(jnp.broadcast_to(jnp.expand_dims(vector, axis), shape))
    return vector


def _is_small(x: jax.Array, axes: tuple[int, ...]) -> bool:
    entries = size(x.shape, tuple(range(x.ndim)))
    return len(axes) > 1 and is_known(entries) and entries < SMALL and not any(jax.typeof(x).sharding.spec)
