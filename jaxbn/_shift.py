"""A value close to the middle of each channel, to take statistics about.

The greatest of many least values: `x` is cut into groups of a few entries, of each group the least is taken, and of
those the greatest. The result lies among the ordinary entries: an outlier comes through only where all of a group are
outliers, and groups are made large enough that so many are no longer far out, against the deviation that they cause.
Few entries are looked at where there are many.

Why not the mean of a sample, or a row of the data: the least and the greatest are the same bits in whatever order they
are found, so that the compiler may compute the shift again elsewhere, and statistics and output are still centred about
one value; and over a sharded array they take a single all-reduce, where a row would have to be fetched.
"""

import math

import jax
import jax.numpy as jnp

from jaxbn._axes import expand
from jaxbn._dtypes import promote

GROUP = 8  # rows of a group at most; they are neighbours, and so mostly on one device
PLACES = 4  # of an image, or whatever else a row is, that are looked at
ENOUGH = 4096  # rows: from here on, every eighth is looked at


def middle(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A value among the entries of `x` over `axes`, without gradient, in the type of the statistics."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(middle(x.real, axes), middle(x.imag, axes))
    x = jax.lax.stop_gradient(x)
    if axes:
        rows = min(axes, key=lambda axis: (x.shape[axis] < GROUP, axis))
        others = tuple(axis for axis in axes if axis != rows)
        x = _places(x, others).min(others, keepdims=True)
        x = _groups(x, rows, several=2 if others else 1).min(rows + 1).max(axes)
    return x.astype(promote(x.dtype))


def _places(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A few evenly spread entries along `axes`."""
    for axis in axes:
        stride = max(1, x.shape[axis] // math.ceil(PLACES ** (1 / len(axes))))
        if (local := _local_size(x, axis)) != x.shape[axis]:
            stride = math.gcd(stride, local)
        x = jax.lax.slice_in_dim(x, stride // 2, None, stride, axis)
    return x


def _groups(x: jax.Array, axis: int, several: int) -> jax.Array:
    """An axis split in two: groups, about as many as there are entries in each, or more; and a few entries of each."""
    size, local = x.shape[axis], _local_size(x, axis)
    group = max(1, min(GROUP, 2 ** ((size - 1).bit_length() // 2) // several))
    if local != size:
        group = math.gcd(group, local)
    stride = 8 if size >= ENOUGH and size % (8 * group) == 0 else 1
    span, whole = group * stride, size // group * group
    x = jax.lax.slice_in_dim(x, 0, whole, axis=axis)
    x = x.reshape(*x.shape[:axis], whole // span, span, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(x, stride // 2, None, stride, axis + 1)


def _local_size(x: jax.Array, axis: int) -> int:
    """The part of an axis of an explicit mesh that one device holds: such an axis only splits evenly."""
    sharding = jax.typeof(x).sharding
    names = sharding.spec[axis] or ()
    return x.shape[axis] // math.prod(sharding.mesh.shape[n] for n in ((names,) if isinstance(names, str) else names))


def about_mean(x: jax.Array, axes: tuple[int, ...], n: int | jax.Array) -> jax.Array:
    """The mean, up to rounding, without gradient: of shapes so unknown that `middle` cannot say where to look.

    It is computed once, as its last bits depend on the order of the sum.
    """
    x = jax.lax.stop_gradient(x)
    end = largest(x, jnp.ones_like(x, bool), axes)
    return jax.lax.optimization_barrier(end + jnp.sum(x.astype(end.dtype) - expand(end, axes), axes) / n)


def largest(x: jax.Array, counts: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The largest entry that counts, without gradient, in the type of the statistics; 0 where none counts."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(largest(x.real, counts, axes), largest(x.imag, counts, axes))
    x = jax.lax.stop_gradient(x)
    least = jnp.finfo(x.dtype).min  # finite, for jax_debug_infs
    result = jax.lax.reduce_max(jnp.where(counts, x, least), axes)
    return jnp.where(result > least, result, 0).astype(promote(x.dtype))
