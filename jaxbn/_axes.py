"""The feature axes of `x`, and the axes that are reduced."""

import math
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def feature_axes(axis: int | Iterable[int], ndim: int) -> tuple[int, ...]:
    """The feature axes as sorted, non-negative integers."""
    try:
        given = tuple(operator.index(a) for a in (axis if isinstance(axis, Iterable) else (axis,)))
    except TypeError:
        raise TypeError(f"axis must be an integer or a tuple of integers; got {axis!r}") from None
    if any(not -ndim <= a < ndim for a in given):
        raise ValueError(
            f"axis must name feature axes of x, which has {ndim} dimensions: from {-ndim} to {ndim - 1}; got {axis!r}"
        )
    axes = tuple(sorted({a % ndim for a in given}))
    if len(axes) < len(given):
        raise ValueError(f"axis must name each feature axis once; got {axis!r} for x of {ndim} dimensions")
    return axes


def reduction_axes(features: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Every axis that is not a feature axis."""
    return tuple(a for a in range(ndim) if a not in features)


def expand(vector: jax.Array, reduced: tuple[int, ...]) -> jax.Array:
    """A vector over the feature axes, with axes of size one where `x` is reduced, so that it broadcasts to `x`."""
    return jnp.expand_dims(vector, reduced)


def size(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """The number of entries along `axes`; symbolic if a size is symbolic (in `jax.export`)."""
    return math.prod(shape[a] for a in axes)


def is_known(size: int) -> bool:
    """True for a number; False for a symbolic size of `jax.export`, which cannot be compared with numbers."""
    return isinstance(size, int)


def entries(shape: tuple[int, ...], axes: tuple[int, ...], dtype: DTypeLike) -> int | jax.Array:
    """The number of entries along `axes`, as a number that can be computed with."""
    number = size(shape, axes)
    return number if is_known(number) else jnp.asarray(number).astype(dtype)
