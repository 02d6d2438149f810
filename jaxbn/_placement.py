"""Shardings in an explicit mesh, where the sharding is part of an array's type and must agree in every operation."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec


def beside(x: jax.Array, array: jax.Array, axes: Sequence[int]) -> jax.Array:
    """The array, whose axes are the given axes of `x` or have size one, sharded like `x`."""
    spec = jax.typeof(x).sharding.spec
    return _placed(array, x, [spec[a] if array.shape[i] == x.shape[a] else None for i, a in enumerate(axes)])


def as_before(new: jax.Array, old: jax.Array) -> jax.Array:
    """The new value of an array, sharded like the old one, so that the type of a state does not change."""
    return _placed(new, old, jax.typeof(old).sharding.spec)


def like(x: jax.Array, array: jax.Array) -> jax.Array:
    """An array of numbers or bools, broadcast to the shape of `x` and sharded like `x`."""
    array = beside(x, array, range(x.ndim))
    if array.dtype == bool:
        return array & jnp.ones_like(x, bool)
    return array * jnp.ones_like(x, array.dtype)


def split_first(array: jax.Array, rows: int) -> jax.Array:
    """The array with its first axis split into groups and rows per group; one group of one row if its size is one."""
    sharding, size = jax.typeof(array).sharding, array.shape[0]
    groups, rows = (1, 1) if size == 1 else (size // rows, rows)
    names = _names(sharding.spec[0])
    outer = next(n for n in range(len(names), -1, -1) if groups % _devices(sharding, names[:n]) == 0) if names else 0
    inner = names[outer:] if rows % _devices(sharding, names[outer:]) == 0 else ()
    spec = (names[:outer] or None, inner or None, *sharding.spec[1:])
    return _reshaped(array, (groups, rows, *array.shape[1:]), spec)


def join_first(array: jax.Array, ndim: int) -> jax.Array:
    """The array with its first two axes joined if it has more than `ndim` dimensions."""
    if array.ndim == ndim:
        return array
    outer, inner, *others = jax.typeof(array).sharding.spec
    groups, rows, *shape = array.shape
    return _reshaped(array, (groups * rows, *shape), ((_names(outer) + _names(inner)) or None, *others))


def _reshaped(array: jax.Array, shape: Sequence[int], spec: Sequence) -> jax.Array:
    mesh = jax.typeof(array).sharding.mesh
    placed = any(spec)  # only in an explicit mesh
    return jax.lax.reshape(array, shape, out_sharding=NamedSharding(mesh, PartitionSpec(*spec)) if placed else None)


def _names(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def _devices(sharding: NamedSharding, names: Sequence[str]) -> int:
    return math.prod(sharding.mesh.shape[name] for name in names)


def _placed(array: jax.Array, other: jax.Array, spec: Sequence) -> jax.Array:
    if tuple(jax.typeof(array).sharding.spec) == tuple(spec):  # always so without an explicit mesh
        return array
    own, others = (jax.typeof(a).sharding.mesh for a in (array, other))
    return jax.sharding.reshard(array, NamedSharding(others if own.empty else own, PartitionSpec(*spec)))
