"""The statistics of an array and of the union of several arrays, for clients, data streams and norms of your own."""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn import _check as check
from jaxbn._axes import feature_axes, reduction_axes
from jaxbn._dtypes import described, promote
from jaxbn._moments import Moments, batch_moments, merged
from jaxbn._placement import like
from jaxbn._sharing import sharing


def moments(
    x: ArrayLike,
    *,
    axis: int | Sequence[int] = -1,
    mask: ArrayLike | None = None,
    axis_name: Hashable | Sequence[Hashable] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> Moments:
    """The weight, the mean and the biased variance of each channel, as `jaxbn.batch_norm` computes them.

    With the entries xᵢ of a channel and their weights wᵢ, which are 1 without a mask:

        W = Σ wᵢ        μ = Σ wᵢxᵢ / W        σ² = Σ wᵢ|xᵢ − μ|² / W

    Args:
        x: floating or complex, of any shape, with the features on `axis`. The result is differentiable in `x`.
        axis: the feature axis, or a tuple of feature axes; every other axis is reduced.
        mask: bools, or non-negative weights, broadcastable to `x`: which entries count, and how often.
        axis_name: a mapped axis, or a tuple of them, whose shards share their statistics.
        axis_index_groups: groups of indices along `axis_name`; only the shards of one group share.

    Returns:
        A `jaxbn.Moments`, arrays of the shape of the feature axes, in float32 or wider. Where no entry counts, the
        weight and the variance are 0, and the mean is arbitrary.

    Raises:
        TypeError: `x` holds integers, or `mask` is complex.
        ValueError: `mask` does not broadcast to `x`; `axis` is not an axis of `x`; `axis_name` is not bound.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> found = jaxbn.moments(jnp.array([[1.0, 10.0], [3.0, 30.0]]))
        >>> print(found.weight, found.mean, found.var)
        [2. 2.] [ 2. 20.] [  1. 100.]

    Source: Ioffe & Szegedy 2015, algorithm 1, lines 1 and 2.

    Differs elsewhere: Flax and Haiku compute the variance as E[x²] − E[x]² by default, which loses all accuracy where
    the mean is far larger than the standard deviation.

    """
    array = check.array(x)
    axes = reduction_axes(feature_axes(axis, array.ndim), array.ndim)
    found = batch_moments(array, axes, check.mask(mask, array.shape), sharing(axis_name, axis_index_groups))
    return found._replace(weight=like(found.var, found.weight))


def merge(parts: Sequence[Moments] | Moments) -> Moments:
    """The moments of the union of several parts, as if `jaxbn.moments` had been given all entries at once.

    With the weights Wₖ, means μₖ and variances σₖ² of the parts:

        W = Σ Wₖ        μ = Σ Wₖμₖ / W        σ² = Σ Wₖ(σₖ² + |μₖ − μ|²) / W

    Args:
        parts: a sequence of `jaxbn.Moments` of the same channels; or one `jaxbn.Moments` with the parts along the first
            axis of its arrays, as `jax.vmap` and `jax.lax.scan` return them. A part of weight 0 has no influence.

    Returns:
        The `jaxbn.Moments` of the union.

    Raises:
        TypeError: `parts` is not made of `jaxbn.Moments`.
        ValueError: there are no parts, or their channels differ in shape.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> clients = [jaxbn.moments(jnp.array(rows)[:, None]) for rows in ([1.0, 2.0], [3.0, 4.0, 5.0])]
        >>> union = jaxbn.merge(clients)
        >>> print(union.weight, union.mean, union.var)  # of 1 to 5
        [5.] [3.] [2.]

    Source: Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.

    Differs elsewhere: averages of clients' variances, as in federated averaging of running statistics, leave out the
    variance between the clients' means.

    """
    if isinstance(parts, Moments):
        return _merged(parts)
    if not isinstance(parts, Sequence) or not all(isinstance(part, Moments) for part in parts):
        kinds = [described(part) for part in parts] if isinstance(parts, list | tuple) else described(parts)
        raise TypeError(f"parts must be a sequence of jaxbn.Moments, such as jaxbn.moments returns; got {kinds}")
    if not parts:
        raise ValueError("parts must hold one or more jaxbn.Moments; got none")
    shapes = {jnp.shape(part.var) for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"parts must be moments of the same channels; got variances of shapes {sorted(shapes)}")
    return _merged(_stacked(parts))


def union(a: Moments, b: Moments) -> Moments:
    """The moments of both together; a part whose weight is 0 or negative has no influence."""
    parts = _stacked((a, b))
    return merged(parts._replace(weight=jnp.maximum(parts.weight, 0)))


def _merged(parts: Moments) -> Moments:
    """The moments of the union, where parts may have one weight for all channels."""
    weight = jnp.expand_dims(parts.weight, range(jnp.ndim(parts.weight), jnp.ndim(parts.var)))
    found = merged(parts._replace(weight=weight))
    return found._replace(weight=like(found.var, found.weight))


def _stacked(parts: Sequence[Moments]) -> Moments:
    """The parts along a new first axis, in a type that holds every part."""

    def stacked(*arrays: ArrayLike) -> jax.Array:
        dtype = promote(*(jnp.result_type(a) for a in arrays))
        shape = jnp.broadcast_shapes(*(jnp.shape(a) for a in arrays))
        return jnp.stack([jnp.broadcast_to(jnp.asarray(a, dtype), shape) for a in arrays])

    return Moments(*map(stacked, *parts))
