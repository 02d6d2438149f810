"""How the running statistics follow the batches: the old statistic keeps the weight `momentum`."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn._dtypes import promote
from jaxbn._hyperparameter import hyperparameter, to_dtype, within, written
from jaxbn._moments import Moments
from jaxbn._placement import like
from jaxbn._schedules import Schedule
from jaxbn._state import BatchNormState
from jaxbn._sum import weighted_mean


def check_momentum(momentum: ArrayLike | Schedule, features: tuple[int, ...]) -> float | jax.Array | Schedule:
    """The momentum as a schedule, a Python float or an array; raises where it is no weight of the old statistic.

    Args:
        momentum: as the user gave it.
        features: the shape of the feature axes.

    """
    if callable(momentum):
        return momentum
    return _weight("momentum", momentum, features, ", or a function of the number of updates, as jaxbn.cumulative() is")


def _weight(name: str, value: object, features: tuple[int, ...], alternative: str = "") -> float | jax.Array:
    """A weight in [0, 1]: one for all channels, or one for each; the error also names an `alternative`."""
    weight = hyperparameter(value)
    if weight is None:
        raise TypeError(
            f"{name} must be a number in [0, 1], or an array of one for each channel{alternative}; got {written(value)}"
        )
    if jnp.shape(weight) not in ((), features):
        raise ValueError(
            f"{name} must be one number, or one for each channel, of shape {features}; got {written(value)}"
        )
    if not within(weight, 0, 1):
        raise ValueError(
            f"{name} must be in [0, 1]: it is the weight kept by the old statistic (PyTorch's momentum m is 1 − m "
            f"here); got {written(value)}"
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

    Where a channel has no weight in the batch, its running statistics stay; and so does its variance where an unbiased
    one is asked for and the weight is not above 1. Of groups (along the first axis) the mean counts. Where `values` is
    given, every channel has this weight, above 1.
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
