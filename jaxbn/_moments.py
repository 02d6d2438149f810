"""The mean and the variance of a batch: the one place where either is computed.

Both are taken about a `shift`, a value close to the middle of the data:

    d = x − shift     W = Σw     offset = Σwd / W     mean = shift + offset     var = Σw|d|² / W − |offset|²

`x − shift` is exact where it matters (nearby floating-point numbers subtract without rounding), so that neither the
mean's rounding nor the difference of two large squares limits the accuracy. The pair (shift, offset) is kept apart,
since `shift + offset` would round. Moments of parts merge into those of the whole as accurately. See docs/math.md.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._axes import expand, size
from jaxbn._copies import copy_below
from jaxbn._dtypes import promote
from jaxbn._policy import name_statistics, recomputed
from jaxbn._sharing import Sharing, expand_right, gather, total
from jaxbn._shift import largest, middle


class Moments(NamedTuple):
    """Mean and biased variance; arrays have the shape of the feature axes, for ghost batches with the groups first."""

    weight: jax.Array  # total weight, real, or something that broadcasts to it
    shift: jax.Array  # a value close to the entries, without gradient
    offset: jax.Array  # mean − shift
    var: jax.Array  # real, biased, at least 0

    @property
    def mean(self) -> jax.Array:
        """The mean, rounded once."""
        return self.shift + self.offset


def moments(
    x: jax.Array, axes: tuple[int, ...], mask: jax.Array | None = None, shared: Sharing | None = None
) -> Moments:
    """The moments of `x` along `axes`, in float32 or wider, differentiable in `x`, keeping `x`, `mask` and vectors.

    Args:
        x: floating or complex.
        axes: what is reduced.
        mask: weights, or which entries count, of as many dimensions as `x` and broadcastable to it. Where it is not
            positive, `x` may hold anything.
        shared: shards to take the moments together with.

    """
    if mask is None and size(x.shape, axes) == 0:  # no entry: as where none counts
        mask = jnp.zeros((1,) * x.ndim, bool)
    return Moments(*name_statistics(tuple(_moments(axes, shared, x, mask))))


def merge(parts: Moments) -> Moments:
    """The moments of the union of parts, which lie along the first axis; parts of weight 0 have no influence."""
    weighs = parts.weight > 0
    shift = largest(parts.shift, weighs, (0,))
    offsets = jnp.where(weighs, (parts.shift - shift[None]) + parts.offset, 0)  # the parts' means from one shift
    weight, offset = weighted_mean(offsets, parts.weight, (0,))
    between = _abs2(offsets - offset[None])
    _, var = weighted_mean(jnp.where(weighs, parts.var + between, 0), parts.weight, (0,))
    return Moments(weight, shift, offset, var)


def weighted_mean(z: jax.Array, w: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Total weight, and the mean along `axes`; 0 where nothing has weight."""
    weight = jnp.sum(w, axes)
    return weight, jnp.sum(w.astype(z.dtype) * z, axes) / jnp.where(weight > 0, weight, 1).astype(z.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _moments(axes: tuple[int, ...], shared: Sharing | None, x: jax.Array, mask: jax.Array | None) -> Moments:
    part = _of_all(axes, x) if mask is None else _of_some(axes, x, mask)
    return part if shared is None else _of_shards(part, shared, masked=mask is not None)


def _of_all(axes: tuple[int, ...], x: jax.Array) -> Moments:
    """One pass over `x`."""
    n = size(x.shape, axes)
    shift = middle(x, axes)
    x = x.astype(shift.dtype)
    # Two sums with shifts of opposite sign: the compiler must not share the difference between them (see _copies).
    offset = jnp.sum(x - expand(copy_below(shift), axes), axes) / n
    square = jnp.sum(_abs2(x + expand(-shift, axes)), axes) / n
    return Moments(jnp.full((1,) * shift.ndim, n, square.dtype), shift, offset, jnp.maximum(square - _abs2(offset), 0))


def _of_some(axes: tuple[int, ...], x: jax.Array, mask: jax.Array) -> Moments:
    """Two passes, since the shift is an extreme entry: nothing cheaper is sure to be one that counts."""
    w, counts = _weights(mask, x)
    shift = largest(x, counts, axes)
    d = jnp.where(counts, x.astype(shift.dtype) - expand(shift, axes), 0)
    weight, offset = weighted_mean(d, w, axes)
    d = jnp.where(counts, d - expand(offset, axes), 0)
    _, correction = weighted_mean(d, w, axes)
    _, square = weighted_mean(_abs2(d), w, axes)
    return Moments(weight, shift, offset + correction, jnp.maximum(square - _abs2(correction), 0))


def _of_shards(part: Moments, shared: Sharing, masked: bool) -> Moments:
    """The merged moments of all shards that share, by one collective; only masks make them differ in weight."""
    is_complex = jnp.iscomplexobj(part.shift)
    vectors = [
        f(v) for v in (part.shift, part.offset) for f in ((jnp.real, jnp.imag) if is_complex else (jnp.asarray,))
    ]
    rows, members = gather(jnp.stack([*vectors, part.var, *([part.weight] if masked else [])]), shared)
    *vectors, var, weight = [*jnp.moveaxis(rows, 1, 0), *([] if masked else [part.weight[None]])]
    shift, offset = [jax.lax.complex(*vectors[i : i + 2]) for i in (0, 2)] if is_complex else vectors
    return merge(Moments(jnp.where(expand_right(members, weight.ndim), weight, 0), shift, offset, var))


@_moments.defjvp
def _(axes: tuple[int, ...], shared: Sharing | None, primals: tuple, tangents: tuple) -> tuple[Moments, Moments]:
    (x, mask), (x_dot, _) = primals, tangents
    result = _moments(axes, shared, x, mask)
    offset_dot, var_dot = _tangent(axes, shared, x, mask, result, x_dot)
    return result, Moments(jnp.zeros_like(result.weight), jnp.zeros_like(result.shift), offset_dot, var_dot)


@partial(recomputed, static_argnums=(0, 1))  # keeps x, mask and vectors: the centred x is recomputed
def _tangent(
    axes: tuple[int, ...], shared: Sharing | None, x: jax.Array, mask: jax.Array | None, m: Moments, x_dot: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """dmean = Σ w dx / W and dvar = 2 Σ w Re((x − mean)* dx) / W."""
    centred = x.astype(m.shift.dtype) - expand(m.shift, axes) - expand(m.offset, axes)
    x_dot = x_dot.astype(m.shift.dtype)
    if mask is not None:
        w, counts = _weights(mask, x)
        x_dot, centred = jnp.where(counts, w.astype(x_dot.dtype) * x_dot, 0), jnp.where(counts, centred, 0)
    sums = total((jnp.sum(x_dot, axes), jnp.sum(jnp.conj(centred) * x_dot, axes)), shared)
    weight = jnp.where(m.weight > 0, m.weight, 1).astype(x_dot.dtype)
    return sums[0] / weight, 2 * jnp.real(sums[1] / weight)


def _weights(mask: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mask as weights, and which entries count at all, both of the shape of `x`; from the mask as it was given."""
    counts = jnp.broadcast_to(mask > 0 if mask.dtype != bool else mask, x.shape)
    w = jnp.broadcast_to(mask.astype(promote(x.real.dtype)), x.shape)
    return jnp.where(counts, w, 0), counts


@jax.custom_jvp
def inverse_root(var: jax.Array) -> jax.Array:
    """1/√var, with a derivative that never forms var^(−3/2), which has left float32 long before var has."""
    return jax.lax.rsqrt(var)


@inverse_root.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (var,), (var_dot,) = primals, tangents
    result = inverse_root(var)
    return result, -0.5 * result * (var_dot / var)


def _abs2(z: jax.Array) -> jax.Array:
    return jnp.square(z.real) + jnp.square(z.imag) if jnp.iscomplexobj(z) else jnp.square(z)
