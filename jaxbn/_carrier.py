"""The gradient of `x` in the computing dtype.

A norm uses `x` twice, for the statistics and for the output. The two parts of its gradient may be far larger than their
sum, so they must be added before they are rounded. JAX gives a cotangent the type of its array. So `x` comes with a
*carrier*, an array of the computing dtype: values are read from `x`, as it is stored, and the gradient goes to the
carrier. No rule reads the carrier's values, so none is kept, and within `jax.jit` none is computed. In evaluation `x`
is used once, and is its own carrier.
"""

from functools import partial

import jax
import jax.numpy as jnp


def carrier_of(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The carrier of `x`: `x` itself if it has this type."""
    return x if x.dtype == dtype else _wider(dtype, x)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _wider(dtype: jnp.dtype, x: jax.Array) -> jax.Array:
    # Without what is not finite: jax_debug_nans would report a NaN that a mask hides.
    return jnp.where(jnp.isfinite(x), x, 0).astype(dtype)


@_wider.defjvp
def _(dtype: jnp.dtype, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return _wider(dtype, *primals), tangents[0].astype(dtype)


@jax.custom_jvp
def carried(x: jax.Array, carrier: jax.Array) -> jax.Array:
    """`x`, for a function without a rule of its own; the gradient goes to the carrier, rounded to the type of `x`."""
    del carrier
    return x


@carried.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (x, _), (_, dot) = primals, tangents
    return x, dot.astype(x.dtype)
