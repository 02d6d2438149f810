"""The mean and the variance of a batch: the one place where either is computed.

Both are taken about a `shift`, an entry of the data close to its middle:

    d = x − shift        offset = Σd / n        mean = shift + offset        var = Σ|d|² / n − |offset|²

`x − shift` is exact where it matters (nearby floating-point numbers subtract without rounding), so that neither the
mean's rounding nor the difference of two large squares limits the accuracy. One pass over `x` serves both sums. The
pair (shift, offset) is kept apart, since `shift + offset` would round. See docs/math.md.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn._axes import expand, size
from jaxbn._copies import copy_below
from jaxbn._dtypes import promote


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
    shift = _middle_entry(x, axes)
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


def _middle_entry(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """In each channel, an entry of `x` that is neither among the smallest nor among the largest.

    Nine entries, evenly spread; of each three the least, of those the greatest: an outlier comes through only where
    several of the nine are outliers. A selection, unlike a mean, gives the same bits wherever and however the compiler
    computes it again; otherwise the statistics and the output could be centred about different values.
    """
    shape = [x.shape[a] for a in axes]
    n = math.prod(shape)
    rows = []
    for i in range(9):
        position = dict(zip(axes, np.unravel_index((2 * i + 1) * n // 18, shape), strict=True))
        rows.append(x[tuple(int(position[a]) if a in position else slice(None) for a in range(x.ndim))])
    nine = jnp.stack(rows).astype(promote(x.dtype))
    return jax.lax.stop_gradient(nine.reshape(3, 3, *nine.shape[1:]).min(1).max(0))


def _abs2(z: jax.Array) -> jax.Array:
    return jnp.square(z.real) + jnp.square(z.imag) if jnp.iscomplexobj(z) else jnp.square(z)
