"""Two sums over the same entries in one pass, for a CPU.

XLA's CPU backend makes a pass over x for each sum. But it compiles elementwise operations into one kernel. So x is cut
into up to eight pieces, which are added entry by entry. The result has two entries for each entry of a piece, one for
each sum, side by side, so the second is computed while the pieces are still in the cache. What remains is summed as
usual, and is much smaller than x. docs/performance.md has the measurements.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._axes import is_known, size
from jaxbn._sum import SMALL, summed

PIECES = range(8, 3, -1)  # the more, the less remains to be summed
ROW = 16  # consecutive entries that belong to one piece, at least: the width of a vector register


class Cut(NamedTuple):
    """How x is cut into pieces: piece k has the entries k, k + pieces, k + 2 · pieces, … along the axis."""

    axis: int
    pieces: int


def cut(x: jax.Array, axes: tuple[int, ...], dtype: jnp.dtype) -> Cut | None:
    """How to cut `x` into most pieces, along one of the reduced axes; None if it cannot be cut, or that gains nothing.

    A narrower x gains nothing: it would be converted for each sum, which takes longer than a pass. Devices may divide
    the first of the axes: then each cuts its own part.
    """
    entries = size(x.shape, tuple(range(x.ndim)))
    if x.dtype != dtype or jnp.iscomplexobj(x) or any(jax.typeof(x).sharding.spec):
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
    first, second = (jnp.expand_dims(_added(each), by.axis + 1) for each in zip(*of_pieces, strict=True))
    which = jax.lax.broadcasted_iota(jnp.int32, [2 if i == by.axis + 1 else 1 for i in range(first.ndim)], by.axis + 1)
    both = jnp.where(which == 0, first, second)
    sums = summed(both, tuple(axis + (axis > by.axis) for axis in axes))
    features = sum(axis not in axes for axis in range(by.axis))  # in front of the axis with both
    return jax.lax.index_in_dim(sums, 0, features, False), jax.lax.index_in_dim(sums, 1, features, False)


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
