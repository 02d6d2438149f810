"""Statistics over a named axis: one collective operation gives every shard the numbers of all shards.

Under `jax.vmap` this is `all_gather`. Over devices, each shard writes its numbers into its own row of a zero buffer,
and one `psum` fills all rows everywhere: JAX knows that the result of `psum` is the same on every shard, but not that
of `all_gather`. (Under `vmap`, such buffers would grow with the square of the axis.)
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Sharing(NamedTuple):
    """The shards that share their statistics."""

    names: tuple[Hashable, ...]  # the mapped axes
    groups: tuple[tuple[int, ...], ...] | None  # the groups of shards that share; None: all shards share

    @property
    def shards(self) -> int:
        """The number of shards along the axes, in all groups."""
        return math.prod(jax.lax.axis_size(name) for name in self.names)

    @property
    def sharers(self) -> int:
        """The number of shards in one group."""
        return len(self.groups[0]) if self.groups else self.shards


def sharing(axis_name: Hashable | Sequence[Hashable] | None, groups: Sequence[Sequence[int]] | None) -> Sharing | None:
    """The sharing that the arguments of `batch_norm` ask for; None without `axis_name`."""
    if axis_name is None:
        if groups is not None:
            raise ValueError("axis_index_groups needs axis_name, whose shards it groups; got axis_name=None. Pass both")
        return None
    names = tuple(axis_name) if isinstance(axis_name, tuple | list) else (axis_name,)
    result = Sharing(names, None if groups is None else tuple(tuple(int(i) for i in group) for group in groups))
    try:
        shards = result.shards
    except NameError:
        raise ValueError(
            f"axis_name must name a mapped axis, and {axis_name!r} is not bound here. Run this inside jax.shard_map "
            f"over a mesh with that axis, or inside jax.vmap or jax.pmap with axis_name={axis_name!r}. Under plain "
            "jax.jit leave axis_name=None: sharded arrays give the statistics of the whole batch without it"
        ) from None
    if result.groups is not None:
        sizes = {len(group) for group in result.groups}
        if len(sizes) != 1 or sorted(i for group in result.groups for i in group) != list(range(shards)):
            raise ValueError(
                f"axis_index_groups must divide the indices 0 to {shards - 1} of {axis_name!r} into groups of equal "
                f"size, with each index in one group; got {groups}"
            )
    return result


def gather(vectors: jax.Array, shared: Sharing) -> tuple[jax.Array, jax.Array]:
    """The `vectors` of every shard, along a new first axis, and a mask of the shards in the group of this one."""
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
    """The sums of the `vectors` over all shards that share, with one collective."""
    if shared is None:
        return vectors
    stacked = jnp.stack(vectors)
    if shared.groups is None:
        return tuple(jax.lax.psum(stacked, shared.names))
    rows, members = gather(stacked, shared)
    return tuple(jnp.sum(rows, 0, where=expand_right(members, rows.ndim)))


def vary_like(x: jax.Array, *vectors: jax.Array) -> Sequence[jax.Array]:
    """The `vectors`, marked as varying over the same shards as `x`, so that their cotangents need one collective."""
    varying = jax.typeof(x).manual_axis_type.varying
    missing = tuple(varying.difference(*(jax.typeof(v).manual_axis_type.varying for v in vectors)))
    return tuple(jax.lax.pcast(jnp.stack(vectors), missing, to="varying")) if missing else vectors


def expand_right(vector: jax.Array, ndim: int) -> jax.Array:
    """The vector as an array of `ndim` dimensions that varies along the first axis only."""
    return jnp.expand_dims(vector, range(1, ndim))
