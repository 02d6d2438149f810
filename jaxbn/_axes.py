"""Which axes of `x` are features, which are reduced, and whether the shapes of everything else agree with them."""

import math
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from jaxbn._state import BatchNormParams, BatchNormState


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
    """A vector over the feature axes, with axes of size one where `x` is reduced, so that both broadcast."""
    return jnp.expand_dims(vector, reduced)


def size(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """The number of entries along `axes`."""
    return math.prod(shape[a] for a in axes)


def check_shapes(
    params: BatchNormParams, state: BatchNormState | None, shape: tuple[int, ...], features: tuple[int, ...]
) -> None:
    """Raises where the parameters or the state do not have the shape of the feature axes of `x`."""
    if not isinstance(params, BatchNormParams):
        raise TypeError(f"params must be a jaxbn.BatchNormParams(scale, bias); got {type(params).__name__}")
    if state is not None and not isinstance(state, BatchNormState):
        raise TypeError(f"state must be a jaxbn.BatchNormState(mean, var, count) or None; got {type(state).__name__}")
    expected = tuple(shape[a] for a in features)
    vectors = {"params.scale": params.scale, "params.bias": params.bias}
    if state is not None:
        vectors |= {"state.mean": state.mean, "state.var": state.var}
    for name, vector in vectors.items():
        if vector is not None and jnp.shape(vector) != expected:
            raise ValueError(
                f"{name} must have shape {expected}, the sizes of the feature axes {features} of x of shape {shape}; "
                f"got {jnp.shape(vector)}. Make params and state with jaxbn.init({str(expected).replace(',)', ')')}), "
                "or pass the axis that holds the features"
            )
