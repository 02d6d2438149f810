"""Statistics over a named axis: what each shard knows of its part, known to all, by one collective operation.

Under `jax.vmap` that is `all_gather`, which only names the axis. Over devices each shard writes its numbers into its
own row of a zero buffer, and one `psum` fills all rows everywhere: the result of `all_gather` is not known to be the
same on every shard, that of `psum` is. (Under `vmap` the buffers would grow with the square of the axis.)
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Sharing(NamedTuple):
    """The shards that share their statistics."""

    names: tuple[Hashable, ...]  # of mapped axes
    groups: tuple[tuple[int, ...], ...] | None  # who shares with whom; None: all with all

    @property
    def shards(self) -> int:
        """All shards along the axes, of all groups."""
        return math.prod(jax.lax.axis_size(name) for name in self.names)

    @property
    def sharers(self) -> int:
        """The shards of one group."""
        return len(self.groups[0]) if self.groups else self.shards


def sharing(axis_name: Hashable | Sequence[Hashable] | None, groups: Sequence[Sequence[int]] | None) -> Sharing | None:
    """Who shares statistics, from the arguments of `batch_norm`; None where nobody does."""
    if axis_name is None:
        if groups is not None:
            raise ValueError("axis_index_groups are groups of the shards along axis_name; pass axis_name too")
        return None
    names = tuple(axis_name) if isinstance(axis_name, tuple | list) else (axis_name,)
    result = Sharing(names, None if groups is None else tuple(tuple(int(i) for i in group) for group in groups))
    try:
        shards = result.shards
    except NameError:
        raise ValueError(
            f"axis_name {axis_name!r} is not bound here. It names a mapped axis: run this inside jax.shard_map over a "
            f"mesh with that axis, or jax.vmap or jax.pmap with axis_name={axis_name!r}. Under plain jax.jit leave "
            "axis_name=None: sharded arrays give the statistics of the whole batch without it"
        ) from None
    if result.groups is not None:
        sizes = {len(group) for group in result.groups}
        if len(sizes) != 1 or sorted(i for group in result.groups for i in group) != list(range(shards)):
            raise ValueError(
                f"axis_index_groups must divide the indices 0 to {shards - 1} of {axis_name!r} into groups of one "
                f"size, each index in one group; got {groups}"
            )
    return result


def gather(vectors: jax.Array, shared: Sharing) -> tuple[jax.Array, jax.Array]:
    """The `vectors` of every shard, along a new first axis, and which of the shards belong to the group of this one."""
    shards, index = shared.shards, jax.lax.axis_index(shared.names)
    if jax.sharding.get_abstract_mesh().manual_axes:
        own = jax.lax.broadcasted_iota(jnp.int32, (shards, *(1,) * vectors.ndim), 0) == index
        rows = jax.lax.psum(jnp.where(own, vectors[None], 0), shared.names)
    else:
        rows = vectors
        for name in reversed(shared.names):
            rows = jax.lax.all_gather(rows, name)
        rows = rows.reshape(shards, *vectors.shape)
    if shared.groups is None:
        return rows, jnp.ones(shards, bool)
    same_group = np.zeros((shards, shards), bool)
    for group in shared.groups:
        same_group[np.ix_(group, group)] = True
    return rows, jnp.asarray(same_group)[index]


def total(vectors: Sequence[jax.Array], shared: Sharing | None) -> Sequence[jax.Array]:
    """The sums of the `vectors` over all shards that share, by one collective."""
    if shared is None:
        return vectors
    stacked = jnp.stack(vectors)
    if shared.groups is None:
        return tuple(jax.lax.psum(stacked, shared.names))
    rows, members = gather(stacked, shared)
    return tuple(jnp.sum(rows, 0, where=expand_right(members, rows.ndim)))


def vary_like(x: jax.Array, *vectors: jax.Array) -> Sequence[jax.Array]:
    """The `vectors`, marked as varying over the shards that `x` varies over: their cotangents take one collective."""
    varying = jax.typeof(x).manual_axis_type.varying
    missing = tuple(varying.difference(*(jax.typeof(v).manual_axis_type.varying for v in vectors)))
    return tuple(jax.lax.pcast(jnp.stack(vectors), missing, to="varying")) if missing else vectors


def expand_right(vector: jax.Array, ndim: int) -> jax.Array:
    """A vector along the first axis of arrays of `ndim` dimensions."""
    return jnp.expand_dims(vector, range(1, ndim))
