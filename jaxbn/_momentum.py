"""How the running statistics follow the batches.

A momentum is the weight that the old statistic keeps: a number, or a schedule, a function of the number of updates
folded in so far.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn._dtypes import promote
from jaxbn._hyperparameter import hyperparameter, to_dtype, within, written
from jaxbn._moments import Moments
from jaxbn._placement import like
from jaxbn._state import BatchNormState
from jaxbn._sum import weighted_mean

Schedule = Callable[[jax.Array], ArrayLike]


@dataclass(frozen=True)
class Cumulative:
    """The schedule t / (t + 1)."""

    def __call__(self, count: ArrayLike) -> jax.Array:
        """The weight of the old statistic after `count` updates."""
        count = jnp.asarray(count, float)
        return count / (count + 1)


@dataclass(frozen=True)
class Debiased:
    """The schedule decay · (1 − decayᵗ) / (1 − decayᵗ⁺¹)."""

    decay: float

    def __call__(self, count: ArrayLike) -> jax.Array:
        """The weight of the old statistic after `count` updates."""
        if self.decay == 0:
            return jnp.zeros_like(count, jnp.float32)
        log, count = math.log(self.decay), jnp.asarray(count, float)
        return self.decay * jnp.expm1(count * log) / jnp.expm1((count + 1) * log)


def cumulative() -> Cumulative:
    """The momentum that makes the running statistics the equal-weight average of all batches so far.

    With t updates folded in, the old statistic keeps the weight t / (t + 1).

    Returns:
        a schedule for the argument `momentum` of `jaxbn.batch_norm`: a value, which is equal to any other of its kind.

    Example:
        >>> import jaxbn
        >>> [round(float(jaxbn.cumulative()(t)), 3) for t in range(4)]
        [0.0, 0.5, 0.667, 0.75]

    Source: PyTorch's `momentum=None`.

    """
    return Cumulative()


def debiased(decay: float) -> Debiased:
    """The momentum of an exponential average that is exact from the first batch on.

    An average that begins at 0 and keeps the weight `decay`, divided by 1 − decayᵗ, the weights given out after t
    updates, as Adam divides its own. As a weight of the old, already divided average that is

        decay · (1 − decayᵗ) / (1 − decayᵗ⁺¹)

    so that no state beyond the count is needed.

    Args:
        decay: in [0, 1), the weight that the old average keeps after many updates.

    Returns:
        a schedule for the argument `momentum` of `jaxbn.batch_norm`: a value, equal to those of the same decay.

    Raises:
        TypeError: `decay` is not a number that is known while tracing.
        ValueError: `decay` is out of its range.

    Example:
        >>> import jaxbn
        >>> [round(float(jaxbn.debiased(0.9)(t)), 3) for t in (0, 1, 2, 1000)]
        [0.0, 0.474, 0.631, 0.9]

    Source: Haiku's `ExponentialMovingAverage(zero_debias=True)`; Kingma & Ba, "Adam", 2015, section 3.

    """
    known = hyperparameter(decay)
    if not isinstance(known, float):
        raise TypeError(
            f"decay must be a number that is known while tracing, such as 0.99; got {written(decay)}. To sweep it, "
            "pass a function of the count that computes the weight from a traced decay"
        )
    if not 0 <= known < 1:
        raise ValueError(f"decay must be at least 0 and below 1, such as 0.99; got {decay!r}")
    return Debiased(known)


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
