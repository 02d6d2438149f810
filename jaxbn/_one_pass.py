"""Two sums over the same entries in one pass, for a CPU, and the line whose transpose they are.

XLA's CPU backend makes a pass over x for each sum. But it compiles elementwise operations into one kernel. So x is cut
into up to eight pieces, which are added entry by entry. The result has two entries for each entry of a piece, one for
each sum, side by side, so the second is computed while the pieces are still in the cache. What remains is summed as
usual, and is much smaller than x. docs/performance.md has the measurements.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._axes import expand, is_known, size
from jaxbn._sum import SMALL, summed

PIECES = range(8, 3, -1)  # the more, the less remains to be summed
ROW = 16  # consecutive entries that belong to one piece, at least: the width of a vector register


class Cut(NamedTuple):
    """How x is cut into pieces: piece k has the entries k, k + pieces, k + 2 · pieces, … along the axis."""

    axis: int
    pieces: int


def cut(x: jax.Array, axes: tuple[int, ...]) -> Cut | None:
    """How to cut `x` into most pieces, along one of the reduced axes; None if it cannot be cut, or that gains nothing.

    Devices may divide the first of the axes: then each cuts its own part.
    """
    entries = size(x.shape, tuple(range(x.ndim)))
    if jnp.iscomplexobj(x) or any(jax.typeof(x).sharding.spec):
        return None
    if not is_known(entries) or entries < SMALL:
        return None
    cuts = [Cut(axis, pieces) for pieces in PIECES for axis in reversed(axes)]
    return next((each for each in cuts if _fits(x.shape, *each, first=axes[0])), None)


def _fits(shape: tuple[int, ...], axis: int, pieces: int, first: int) -> bool:
    devices = jax.device_count() if axis == first else 1
    return shape[axis] % (pieces * devices) == 0 and size(shape, tuple(range(axis + 1, len(shape)))) >= ROW


def both_summed(
    terms: Callable[..., tuple[jax.Array, jax.Array]],
    arrays: Sequence[jax.Array | None],
    axes: tuple[int, ...],
    by: Cut,
) -> tuple[jax.Array, jax.Array]:
    """The sums along `axes` of both arrays that `terms` makes of the given ones, entry by entry."""
    of_pieces = [terms(*each) for each in zip(*(_pieces(array, by) for array in arrays), strict=True)]
    first, second = (_added(each) for each in zip(*of_pieces, strict=True))
    sums = summed(_side_by_side(first, second, by.axis + 1), tuple(axis + (axis > by.axis) for axis in axes))
    features = sum(axis not in axes for axis in range(by.axis))  # in front of the axis with both
    return jax.lax.index_in_dim(sums, 0, features, False), jax.lax.index_in_dim(sums, 1, features, False)


def line(slope: jax.Array, intercept: jax.Array, x: jax.Array, axes: tuple[int, ...], by: Cut) -> jax.Array:
    """slope · x + intercept. The transpose of this function takes the sums Σgx and Σg in one pass.

    Args:
        slope: a vector over the features.
        intercept: another.
        x: an array.
        axes: the axes along which the vectors do not vary.
        by: how to cut `x`.

    """
    pieces = [piece for piece in _pieces(x, by) if piece is not None]
    shape = [*pieces[0].shape[: by.axis + 1], 2, *pieces[0].shape[by.axis + 1 :]]
    both = _side_by_side(expand(slope, axes), expand(intercept, axes), by.axis + 1)
    # The transpose of a split is a concatenation, which is one kernel.
    parts = jax.lax.split(jnp.broadcast_to(both, shape), (1, 1), by.axis + 1)
    slopes, intercepts = (part.squeeze(by.axis + 1) for part in parts)
    return jnp.stack([slopes * piece + intercepts for piece in pieces], by.axis + 1).reshape(x.shape)


def _side_by_side(first: jax.Array, second: jax.Array, axis: int) -> jax.Array:
    """Both arrays along a new axis, as one elementwise operation."""
    which = jax.lax.broadcasted_iota(jnp.int32, [2 if i == axis else 1 for i in range(first.ndim + 1)], axis)
    return jnp.where(which == 0, jnp.expand_dims(first, axis), jnp.expand_dims(second, axis))


def _pieces(array: jax.Array | None, by: Cut) -> list[jax.Array | None]:
    """The pieces of an array, which keep all axes; of one that broadcasts along the axis, the array itself."""
    if array is None or array.shape[by.axis] == 1:
        return [array] * by.pieces
    shape = (*array.shape[: by.axis], -1, by.pieces, *array.shape[by.axis + 1 :])
    parts = array.reshape(shape)
    return [jax.lax.index_in_dim(parts, k, by.axis + 1, False) for k in range(by.pieces)]


def _added(arrays: Sequence[jax.Array]) -> jax.Array:
    """The sum of arrays, added in pairs, so that each number is rounded three times at most."""
    while len(arrays) > 1:
        pairs = [a + b for a, b in zip(arrays[::2], arrays[1::2], strict=False)]
        arrays = [*pairs, *arrays[2 * len(pairs) :]]
    return arrays[0]
