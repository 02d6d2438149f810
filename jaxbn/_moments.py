"""The mean and the variance of a batch, on one device or over several: all statistics come from here.

Both are taken about a `shift`, a value close to the middle of the data:

    d = x − shift     W = Σw     offset = Σwd / W     mean = shift + offset     var = Σw|d|² / W − |offset|²

Shift and offset are kept separately, since `shift + offset` would round. `_about.py` finds the shift and takes the
sums. Moments of parts merge into those of the whole with the same accuracy. See docs/math.md.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn._about import Entries, about
from jaxbn._axes import entries, expand, is_known, size
from jaxbn._dtypes import promote
from jaxbn._placement import beside, like
from jaxbn._policy import name_statistics, recomputed
from jaxbn._sharing import Sharing, expand_right, gather, total, vary_like
from jaxbn._state import BatchNormState
from jaxbn._sum import abs2, averaged, summed, weighted_mean
from jaxbn._weights import in_units, power_of_two, unit_of, without_unit


class Moments(NamedTuple):
    """Weight, mean and biased variance of each channel; arrays of the shape of the feature axes.

    The mean is stored as a sum of two numbers, which keeps it exact where it is far larger than the standard deviation:

        mean = shift + offset

    To write moments that are known as plain numbers, use `Moments(weight, mean, jnp.zeros_like(mean), var)`.

    Attributes:
        weight: the total weight of the entries, real, or an array that broadcasts to it.
        shift: a value close to the entries, without gradient.
        offset: mean − shift.
        var: the biased variance, real, at least 0.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> known = jaxbn.Moments(jnp.array(4.0), jnp.array([1.0]), jnp.array([0.0]), jnp.array([2.0]))
        >>> print(known.mean, jaxbn.merge([known, jaxbn.moments(jnp.ones((4, 1)))]).var)
        [1.] [1.]

    """

    weight: jax.Array
    shift: jax.Array
    offset: jax.Array
    var: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The mean, rounded once."""
        return self.shift + self.offset


def batch_moments(
    x: jax.Array,
    axes: tuple[int, ...],
    mask: jax.Array | None = None,
    shared: Sharing | None = None,
    *,
    guess: jax.Array | None = None,
    epsilon: ArrayLike = 0.0,
    carrier: jax.Array | None = None,
) -> Moments:
    """The moments of `x` along `axes`, in float32 or wider, differentiable with respect to `x`, or to its carrier.

    The backward pass keeps `x`, `mask` and per-channel vectors.

    Args:
        x: floating or complex.
        axes: the axes to reduce.
        mask: weights, or which entries count, with as many dimensions as `x` and broadcastable to it. Where it is not
            positive, `x` may hold anything.
        shared: the shards that share the moments.
        guess: an estimate of the mean, broadcastable to the result; 0 by default. It decides how often x is read, not
            the result.
        epsilon: the number that will be added to the variance; no accuracy is needed far below it.
        carrier: the same numbers as `x`, to which the gradient goes (see `_carrier.py`); `x` by default.

    """
    if mask is None and is_known(n := size(x.shape, axes)) and n == 0:  # no entries: treated as all masked out
        mask = jnp.zeros((1,) * x.ndim, bool)
    mask = None if mask is None else beside(x, mask, range(x.ndim))
    carrier = x if carrier is None else carrier
    part = _moments(axes, shared, x, carrier, mask, _start(x, axes, guess), jnp.asarray(epsilon))
    found = part.moments._replace(weight=without_unit(part.moments.weight, part.unit))
    return Moments(*name_statistics(tuple(found)))


def of_running(state: BatchNormState) -> Moments:
    """The running statistics, as moments."""
    return Moments(jnp.ones(()), state.mean, jnp.zeros_like(state.mean), state.var)


def merged(parts: Moments) -> Moments:
    """The moments of the union of parts, stacked along the first axis; parts of weight 0 have no influence."""
    weighs, unit = parts.weight > 0, power_of_two(parts.weight, (0,))
    weights = parts.weight / unit[None]
    shift = _of_heaviest(parts.shift, weights)
    offsets = jnp.where(weighs, (parts.shift - shift[None]) + parts.offset, 0)  # the parts' means from one shift
    weight, offset = weighted_mean(offsets, weights, (0,))
    between = abs2(offsets - offset[None])
    _, var = weighted_mean(jnp.where(weighs, parts.var + between, 0), weights, (0,))
    return Moments(without_unit(weight, unit), shift, offset, var)


def _of_heaviest(vectors: jax.Array, weights: jax.Array) -> jax.Array:
    """For each channel, the entry of the part with the largest weight: the overall mean is near that part's mean."""
    heaviest = jnp.broadcast_to(jnp.argmax(weights, 0, keepdims=True), (1, *vectors.shape[1:]))
    return jnp.take_along_axis(vectors, heaviest, 0)[0]


def _start(x: jax.Array, axes: tuple[int, ...], guess: jax.Array | None) -> jax.Array:
    """The guess for each channel, made finite, on each shard of `x`, in the type of the statistics."""
    features = [axis for axis in range(x.ndim) if axis not in axes]
    vector = jax.lax.stop_gradient(jnp.zeros(()) if guess is None else guess).astype(promote(x.dtype))
    vector = jnp.where(abs(vector) < math.sqrt(jnp.finfo(vector.dtype).max), vector, jnp.zeros_like(vector))
    vector = beside(x, jnp.broadcast_to(vector, [x.shape[axis] for axis in features]), features)
    return vary_like(x, vector)[0]


class _Part(NamedTuple):
    """Moments whose weight is measured in units."""

    moments: Moments
    unit: jax.Array | None  # of the shape of the weight; None for 1


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _moments(
    axes: tuple[int, ...],
    shared: Sharing | None,
    x: jax.Array,
    carrier: jax.Array,
    mask: jax.Array | None,
    guess: jax.Array,
    epsilon: jax.Array,
) -> _Part:
    part = _of_own(axes, x, mask, guess, epsilon)
    return part if shared is None else _of_shards(part, shared, masked=mask is not None)


def _of_own(axes: tuple[int, ...], x: jax.Array, mask: jax.Array | None, guess: jax.Array, epsilon: jax.Array) -> _Part:
    """The moments of the entries on this shard."""
    real = jnp.finfo(guess.dtype).dtype
    if mask is None:
        weight, unit = jnp.full((1,) * guess.ndim, entries(x.shape, axes, real), real), None
    else:
        unit = unit_of(mask, x, axes)
        weight = summed(in_units(mask, unit, x, axes)[0], axes)
    found = about(axes, Entries(x, mask, unit), weight, guess, epsilon.astype(real))
    return _Part(Moments(weight, *found), None if unit is None else like(weight, unit))


def _of_shards(part: _Part, shared: Sharing, masked: bool) -> _Part:
    """The merged moments of all shards that share, with one collective. Only masks make the shards' weights differ."""
    (weight, shift, offset, var), unit = part
    is_complex = jnp.iscomplexobj(shift)
    vectors = [f(v) for v in (shift, offset) for f in ((jnp.real, jnp.imag) if is_complex else (jnp.asarray,))]
    vectors += [var, *([weight] if masked else []), *([] if unit is None else [unit])]
    rows, members = gather(jnp.stack(vectors), shared)
    *vectors, var, weight, unit = [
        *jnp.moveaxis(rows, 1, 0), *([] if masked else [weight[None]]), *([None] if unit is None else [])
    ]  # fmt: skip
    shift, offset = [jax.lax.complex(*vectors[i : i + 2]) for i in (0, 2)] if is_complex else vectors
    weight = jnp.where(expand_right(members, weight.ndim), weight, 0)
    if unit is not None:
        units, unit = unit, power_of_two(jnp.where(weight > 0, unit, 0), (0,))
        weight = weight * (units / unit[None])
    return _Part(merged(Moments(weight, shift, offset, var)), unit)


@_moments.defjvp
def _(axes: tuple[int, ...], shared: Sharing | None, primals: tuple, tangents: tuple) -> tuple[_Part, _Part]:
    (x, _, mask, *_), (_, x_dot, *_) = primals, tangents
    result = _moments(axes, shared, *primals)
    offset_dot, var_dot = _tangent(axes, shared, x, mask, result, x_dot)
    constant = jax.tree.map(jnp.zeros_like, result)
    return result, constant._replace(moments=constant.moments._replace(offset=offset_dot, var=var_dot))


@partial(recomputed, static_argnums=(0, 1))  # keeps x, mask and vectors: distances are recomputed
def _tangent(
    axes: tuple[int, ...], shared: Sharing | None, x: jax.Array, mask: jax.Array | None, part: _Part, x_dot: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """dmean = Σ w dx / W and dvar = 2 Re(Σ w (x − origin)* dx / W − (mean − origin)* dmean)."""
    m = part.moments
    origin = _origin(x.dtype, m.shift)
    x_dot = x_dot.astype(m.shift.dtype)
    if mask is None:
        distance = x.astype(m.shift.dtype) - expand(origin, axes)
    else:
        w, counts = in_units(mask, part.unit, x, axes)
        known = jnp.where(counts, x, 0).astype(m.shift.dtype)
        distance = jnp.where(counts, known - expand(origin, axes), 0)
        x_dot = jnp.where(counts, w.astype(x_dot.dtype) * x_dot, 0)
    sums = total((summed(x_dot, axes), summed(jnp.conj(distance) * x_dot, axes)), shared)
    mean_dot, product = (averaged(each, m.weight) for each in sums)
    return mean_dot, 2 * jnp.real(product - jnp.conj(m.shift - origin + m.offset) * mean_dot)


@partial(jax.jit, static_argnums=0, inline=True)
def _origin(dtype: jnp.dtype, shift: jax.Array) -> jax.Array:
    """The shift; for bfloat16 on a TPU 0, which is near enough to numbers of 8 bits (see docs/math.md).

    A TPU v6e computes the gradient of x inside the convolutions that read it if it needs three vectors, but not if it
    needs four.
    """
    if dtype != jnp.bfloat16:
        return shift
    return jax.lax.platform_dependent(shift, tpu=jnp.zeros_like, default=jnp.asarray)
