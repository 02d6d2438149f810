"""A value close to the middle of each channel, to take statistics about.

The greatest of many least values: `x` is cut into groups of a few entries, of each group the least is taken, and of
those the greatest. With about log₂(groups) entries in a group the result lies near the median, and an outlier comes
through only where a whole group consists of outliers. Few entries are looked at where there are many.

Why not the mean of a sample, or a row of the data: the least and the greatest are the same bits in whatever order they
are found, so that the compiler may compute the shift again elsewhere, and statistics and output are still centred about
one value; and over a sharded array they take a single all-reduce, where a row would have to be fetched.
"""

import math

import jax
import jax.numpy as jnp

from jaxbn._dtypes import promote

LARGEST_GROUP = 8
ENOUGH = 4096  # along a single axis: from here on, every eighth entry is looked at


def middle(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A value near the median of `x` over `axes`, without gradient, in the type of the statistics."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(middle(x.real, axes), middle(x.imag, axes))
    x = jax.lax.stop_gradient(x)
    if len(axes) > 1:
        lead = min(axes, key=lambda axis: (x.shape[axis] < LARGEST_GROUP, axis))
        others = tuple(axis for axis in axes if axis != lead)
        least = _sample(x, others, math.log2(x.shape[lead] + 1)).min(others, keepdims=True)
    elif axes:
        least = _groups(x, *axes).min(axes[0] + 1)
    else:
        least = x
    return least.max(axes).astype(promote(x.dtype))


def _sample(x: jax.Array, axes: tuple[int, ...], count: float) -> jax.Array:
    """About `count` evenly spread entries along `axes` together."""
    each = math.ceil(count ** (1 / len(axes)))
    for axis in axes:
        stride = max(1, x.shape[axis] // each)
        x = jax.lax.slice_in_dim(x, stride // 2, None, stride, axis)
    return x


def _groups(x: jax.Array, axis: int) -> jax.Array:
    """An axis split in two: groups, and a few entries of each."""
    size = x.shape[axis]
    group = min(LARGEST_GROUP, 2 ** (size.bit_length() // 2))
    spec = jax.typeof(x).sharding.spec[axis]  # not None: an axis of an explicit mesh, which only splits evenly
    if spec is not None:
        group = math.gcd(group, size // math.prod(jax.typeof(x).sharding.mesh.shape[a] for a in _names(spec)))
    stride = 8 if size >= ENOUGH and size % (8 * group) == 0 else 1
    x = jax.lax.slice_in_dim(x, 0, size // group * group, axis=axis)
    x = x.reshape(*x.shape[:axis], -1, group * stride, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(x, stride // 2, None, stride, axis + 1)


def _names(spec: str | tuple[str, ...]) -> tuple[str, ...]:
    return (spec,) if isinstance(spec, str) else spec


def largest(x: jax.Array, counts: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The largest entry that counts, without gradient, in the type of the statistics; 0 where none counts."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(largest(x.real, counts, axes), largest(x.imag, counts, axes))
    x = jax.lax.stop_gradient(x)
    result = jnp.max(x, axes, where=counts, initial=-jnp.inf).astype(promote(x.dtype))
    return jnp.where(result > -jnp.inf, result, 0)
