"""The update of the running statistics: the old statistic keeps the weight `momentum`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxbn._dtypes import promote
from jaxbn._hyperparameter import hyperparameter, to_dtype, within, written
from jaxbn._moments import Moments
from jaxbn._placement import like
from jaxbn._schedules import Schedule
from jaxbn._state import BatchNormState
from jaxbn._sum import weighted_mean


def check_momentum(momentum: ArrayLike | Schedule, features: tuple[int, ...]) -> float | jax.Array | Schedule:
    """The momentum as a schedule, a Python float or an array; raises if it is not a weight in [0, 1].

    Args:
        momentum: the argument of the user.
        features: the shape of the feature axes.

    """
    if callable(momentum):
        return momentum
    return _weight("momentum", momentum, features, ", or a function of the number of updates, as jaxbn.cumulative() is")


def _weight(name: str, value: object, features: tuple[int, ...], alternative: str = "") -> float | jax.Array:
    """A weight in [0, 1], one number or one per channel; the error also names an `alternative`."""
    weight = hyperparameter(value)
    if weight is None:
        raise TypeError(
            f"{name} must be a number in [0, 1], or an array with one per channel{alternative}; got {written(value)}"
        )
    if np.shape(weight) not in ((), features):
        raise ValueError(
            f"{name} must be one number, or one per channel, an array of shape {features}; got {written(value)}"
        )
    if not within(weight, 0, 1):
        raise ValueError(
            f"{name} must be in [0, 1], the weight of the old statistic (PyTorch's momentum m is 1 − m here); "
            f"got {written(value)}"
        )
    return weight


def update(
    state: BatchNormState,
    batch: Moments,
    momentum: float | jax.Array | Schedule,
    *,
    unbiased: bool,
    grouped: bool,
    values: int | None,
) -> BatchNormState:
    """running ← momentum · running + (1 − momentum) · batch, for the mean and the variance.

    A channel without weight in the batch keeps its running statistics. With `unbiased`, a channel of weight 1 or less
    keeps its variance. Ghost groups (along the first axis) are averaged. If `values` is given, every channel has this
    weight, which is above 1.
    """
    if callable(momentum):
        momentum = _weight("the value of the momentum schedule", momentum(state.count), state.mean.shape)
    mean, var = batch.mean, batch.var
    if values is not None:
        var = var * (values / (values - 1)) if unbiased else var
        if grouped:
            mean, var = mean.mean(0), var.mean(0)
        mean, var = (_average(*pair, momentum) for pair in ((state.mean, mean), (state.var, var)))
        return BatchNormState(mean, var, state.count + 1)

    weight = like(mean, batch.weight)
    has_mean = weight > 0
    has_var = weight > 1 if unbiased else has_mean
    if unbiased:
        var = var * (weight / jnp.where(has_var, weight - 1, 1))
    if grouped:
        (has_mean, mean), (has_var, var) = _mean_of_groups(mean, has_mean), _mean_of_groups(var, has_var)
    return BatchNormState(
        mean=jnp.where(has_mean, _average(state.mean, mean, momentum), state.mean),
        var=jnp.where(has_var, _average(state.var, var, momentum), state.var),
        count=state.count + jnp.any(has_mean).astype(jnp.int32),
    )


def _mean_of_groups(statistic: jax.Array, has: jax.Array) -> tuple[jax.Array, jax.Array]:
    weight, mean = weighted_mean(statistic, has.astype(jnp.float32), (0,))
    return weight > 0, mean


def _average(old: jax.Array, new: jax.Array, momentum: float | jax.Array) -> jax.Array:
    dtype = promote(old.dtype, new.dtype)
    keep = to_dtype(momentum, dtype)
    return keep * old.astype(dtype) + (1 - keep) * new.astype(dtype)
