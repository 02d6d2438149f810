"""The mean and the variance of a batch: the one place where either is computed.

Both are taken about a `shift`, a value close to the middle of the data:

    d = x − shift        offset = Σd / n        mean = shift + offset        var = Σ|d|² / n − |offset|²

`x − shift` is exact where it matters (nearby floating-point numbers subtract without rounding), so that neither the
mean's rounding nor the difference of two large squares limits the accuracy. One pass over `x` serves both sums. The
pair (shift, offset) is kept apart, since `shift + offset` would round. See docs/math.md.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._axes import expand, size
from jaxbn._copies import copy_below
from jaxbn._shift import middle


class Moments(NamedTuple):
    """Mean and biased variance over `weight` entries; arrays have the shape of the feature axes."""

    weight: int  # entries that each statistic was taken over
    shift: jax.Array  # a value close to the entries, without gradient
    offset: jax.Array  # mean − shift
    var: jax.Array  # real, biased, at least 0

    @property
    def mean(self) -> jax.Array:
        """The mean, rounded once."""
        return self.shift + self.offset


def moments(x: jax.Array, axes: tuple[int, ...]) -> Moments:
    """The moments of `x` along `axes`, in float32 or wider, differentiable, keeping only `x` and vectors."""
    return Moments(size(x.shape, axes), *_moments(x, axes))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
    n = size(x.shape, axes)
    shift = middle(x, axes)
    x = x.astype(shift.dtype)
    # Two sums with shifts of opposite sign: the compiler must not share the difference between them (see _copies).
    offset = jnp.sum(x - expand(copy_below(shift), axes), axes) / n
    square = jnp.sum(_abs2(x + expand(-shift, axes)), axes) / n
    return shift, offset, jnp.maximum(square - _abs2(offset), 0)


@_moments.defjvp
def _(axes: tuple[int, ...], primals: tuple, tangents: tuple) -> tuple:
    (x,), (x_dot,) = primals, tangents
    shift, offset, var = _moments(x, axes)
    return (shift, offset, var), (jnp.zeros_like(shift), *_moments_tangent(axes, x, shift, offset, x_dot))


@partial(jax.checkpoint, static_argnums=0)  # keeps x and vectors: the centred x is recomputed
def _moments_tangent(
    axes: tuple[int, ...], x: jax.Array, shift: jax.Array, offset: jax.Array, x_dot: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """dmean = Σdx / n and dvar = 2 Σ Re((x − mean)* dx) / n."""
    n = size(x.shape, axes)
    centred = x.astype(shift.dtype) - expand(shift, axes) - expand(offset, axes)
    x_dot = x_dot.astype(shift.dtype)
    return jnp.sum(x_dot, axes) / n, jnp.sum(jnp.real(jnp.conj(centred) * x_dot), axes) * (2 / n)


def _abs2(z: jax.Array) -> jax.Array:
    return jnp.square(z.real) + jnp.square(z.imag) if jnp.iscomplexobj(z) else jnp.square(z)
