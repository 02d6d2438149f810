"""Batch normalization as one pure function: the composition that reads like the paper's algorithm."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jaxbn._axes import check_shapes, feature_axes, reduction_axes, size
from jaxbn._dtypes import promote
from jaxbn._moments import Moments, moments
from jaxbn._momentum import check_momentum, update
from jaxbn._normalize import normalize
from jaxbn._state import BatchNormParams, BatchNormState

StateT = TypeVar("StateT", bound=BatchNormState | None)


def batch_norm(
    params: BatchNormParams,
    state: StateT,
    x: ArrayLike,
    train: bool,
    *,
    axis: int | Sequence[int] = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    unbiased: bool = False,
    dtype: DTypeLike | None = None,
) -> tuple[jax.Array, StateT]:
    """Normalises `x` in each channel, by the batch's statistics (training) or the running ones (evaluation).

    With the m entries xᵢ of a channel:

        μ = (1/m) Σ xᵢ        σ² = (1/m) Σ |xᵢ − μ|²        x̂ᵢ = (xᵢ − μ) / √(σ² + ε)        yᵢ = γ x̂ᵢ + β

    and, in training, running ← momentum · running + (1 − momentum) · batch, for mean and variance.

    Args:
        params: γ and β, of the shape of the feature axes; made by `jaxbn.init`.
        state: the running statistics; None to use the batch's statistics always and to track nothing.
        x: floating or complex, any shape, the features on `axis`. float32 input with |mean|/std up to 10⁶ is normalised
            to within 2·10⁻⁶ of exact arithmetic.
        train: a Python bool. True: normalise with the batch's statistics and update the state. False: normalise with
            the state, which is returned as it is, the very same object.
        axis: the feature axis, or a tuple of them (in any order); every other axis is reduced.
        momentum: in [0, 1], the weight kept by the old running statistic.
        epsilon: at least 0, added to the variance under the root, in the square of the unit of `x`.
        unbiased: the running variance takes the m/(m−1) estimate; the normalization itself never does.
        dtype: type of the result; that of `x` by default. Statistics are computed in float32 or wider whatever it is.

    Returns:
        `(y, state)`: y of the shape of `x`; the state has the type that it had, or the statistics' where that is wider.

    Raises:
        TypeError: `train` is traced or no bool; `x` is of integers; an argument is of the wrong kind.
        ValueError: the shapes of `params`, `state` and `x` disagree; an option is out of its range; a channel has fewer
            than two values to take statistics of.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.init(2)
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> y, state = jaxbn.batch_norm(params, state, x, train=True, momentum=0.9)
        >>> print(y.round(3))
        [[-1. -1.]
         [ 1.  1.]]
        >>> print(state.mean, state.var, state.count)
        [0.2 2. ] [ 1.  10.9] 1
        >>> y, _ = jaxbn.batch_norm(params, state, x, train=False)

    Source: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift", 2015, algorithms 1 and 2.

    Differs elsewhere: PyTorch's momentum is the weight of the *new* statistic (its 0.1 is 0.9 here) and its running
    variance is unbiased (`unbiased=True` here; the paper's evaluation does so too); Keras' epsilon is 1e-3 by default.

    """
    x = _check_array(x)
    _check_options(train, momentum, epsilon)
    features = feature_axes(axis, x.ndim)
    axes = reduction_axes(features, x.ndim)
    check_shapes(params, state, x.shape, features)

    if train or state is None:
        _check_count(x.shape, axes)
        batch = moments(x, axes)
        new_state = update(state, batch, momentum, unbiased) if state is not None else None
    else:
        batch = Moments(1, state.mean, jnp.zeros_like(state.mean), state.var)
        new_state = state

    shift, multiplier, offset = _coefficients(params, batch, epsilon)
    y = normalize(x, shift, multiplier, offset, axes, _check_dtype(dtype, shift.dtype, x.dtype))
    return y, cast(StateT, new_state)


def _coefficients(params: BatchNormParams, batch: Moments, epsilon: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The vectors of y = (x − shift) · multiplier + offset, all of one type."""
    dtype = promote(batch.shift.dtype, *(v.dtype for v in params if v is not None))
    shift, remainder = batch.shift.astype(dtype), batch.offset.astype(dtype)
    multiplier = jax.lax.rsqrt(batch.var + epsilon).astype(dtype)
    if params.scale is not None:
        multiplier = multiplier * params.scale.astype(dtype)
    offset = -remainder * multiplier
    if params.bias is not None:
        offset = offset + params.bias.astype(dtype)
    return shift, multiplier, offset


def _check_array(x: ArrayLike) -> jax.Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"x must be floating or complex; got {x.dtype.name}. Convert it first: x.astype(jnp.float32)")
    return x


def _check_options(train: bool, momentum: float, epsilon: float) -> None:
    if isinstance(train, Tracer):
        raise TypeError(
            "train must be a Python bool, known while tracing, since it decides what is computed; got a traced value. "
            "Mark the argument static (jax.jit(..., static_argnames='train')), or choose at run time with "
            "jax.lax.cond(train, lambda: batch_norm(..., True), lambda: batch_norm(..., False))"
        )
    if not isinstance(train, bool | np.bool_):
        raise TypeError(f"train must be a Python bool; got {train!r}. Convert it first: bool(train)")
    check_momentum(momentum)
    if isinstance(epsilon, bool) or not isinstance(epsilon, Real):
        raise TypeError(f"epsilon must be a Python number; got {epsilon!r}")
    if not (epsilon >= 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be finite and at least 0, such as 1e-5; got {epsilon!r}")


def _check_count(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    count = size(shape, axes)
    if count < 2:
        raise ValueError(
            "the statistics of a batch need more than one value per channel: with one, the variance is 0 and the "
            f"output is the bias whatever x holds; x of shape {shape} reduced over axes {axes} has {count}. "
            "Use a larger batch, or normalise with the running statistics (train=False)"
        )


def _check_dtype(dtype: DTypeLike | None, computed: jnp.dtype, given: jnp.dtype) -> jnp.dtype:
    result = given if dtype is None else jnp.dtype(dtype)
    if not jnp.issubdtype(result, jnp.inexact):
        raise TypeError(f"dtype must be floating or complex, such as jnp.float32; got {result.name}")
    if jnp.issubdtype(computed, jnp.complexfloating) and not jnp.issubdtype(result, jnp.complexfloating):
        raise TypeError(
            f"a result of type {result.name} cannot hold what complex inputs give; pass dtype=jnp.{computed.name}"
        )
    return result
