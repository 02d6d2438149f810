"""How the running statistics follow the batches.

A momentum is the weight that the old statistic keeps: a number, or a schedule, a function of the number of updates
folded in so far.
"""

import math
from collections.abc import Callable
from numbers import Real

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn._dtypes import promote
from jaxbn._moments import Moments, weighted_mean
from jaxbn._placement import like
from jaxbn._state import BatchNormState

Schedule = Callable[[jax.Array], ArrayLike]


def cumulative() -> Schedule:
    """The momentum that makes the running statistics the equal-weight average of all batches so far.

    With t updates folded in, the old statistic keeps the weight t / (t + 1).

    Returns:
        a schedule for the argument `momentum` of `jaxbn.batch_norm`.

    Example:
        >>> import jaxbn
        >>> [round(float(jaxbn.cumulative()(t)), 3) for t in range(4)]
        [0.0, 0.5, 0.667, 0.75]

    Source: PyTorch's `momentum=None`.

    """
    return lambda count: jnp.asarray(count, float) / (jnp.asarray(count, float) + 1)


def debiased(decay: float) -> Schedule:
    """The momentum of an exponential average that is exact from the first batch on.

    An average that begins at 0 and keeps the weight `decay`, divided by 1 − decayᵗ, the weights given out after t
    updates, as Adam divides its own. As a weight of the old, already divided average that is

        decay · (1 − decayᵗ) / (1 − decayᵗ⁺¹)

    so that no state beyond the count is needed.

    Args:
        decay: in [0, 1), the weight that the old average keeps after many updates.

    Returns:
        a schedule for the argument `momentum` of `jaxbn.batch_norm`.

    Raises:
        ValueError: `decay` is out of its range.

    Example:
        >>> import jaxbn
        >>> [round(float(jaxbn.debiased(0.9)(t)), 3) for t in (0, 1, 2, 1000)]
        [0.0, 0.474, 0.631, 0.9]

    Source: Haiku's `ExponentialMovingAverage(zero_debias=True)`; Kingma & Ba, "Adam", 2015, section 3.

    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be at least 0 and below 1, such as 0.99; got {decay!r}")
    if decay == 0:
        return lambda count: jnp.zeros_like(count, jnp.float32)
    log = math.log(decay)

    def schedule(count: ArrayLike) -> jax.Array:
        count = jnp.asarray(count, float)
        return decay * jnp.expm1(count * log) / jnp.expm1((count + 1) * log)

    return schedule


def check_momentum(momentum: float | Schedule) -> float | Schedule:
    """The momentum as a function or a Python float; raises where it is neither that nor a number in [0, 1]."""
    if callable(momentum):
        return momentum
    if isinstance(momentum, bool) or not isinstance(momentum, Real):
        raise TypeError(
            "momentum must be a Python number in [0, 1], or a function of the number of updates so far, such as "
            f"jaxbn.cumulative() or an Optax schedule; got {momentum!r}"
        )
    if not 0 <= momentum <= 1:
        raise ValueError(
            "momentum must be in [0, 1]: it is the weight kept by the old statistic (PyTorch's momentum m is 1 − m "
            f"here); got {momentum!r}"
        )
    return float(momentum)


def update(
    state: BatchNormState,
    batch: Moments,
    momentum: float | Schedule,
    *,
    unbiased: bool,
    grouped: bool,
    values: int | None,
) -> BatchNormState:
    """running ← momentum · running + (1 − momentum) · batch, for the mean and the variance.

    Where a channel has no weight in the batch, its running statistics stay; and so does its variance where an unbiased
    one is asked for and the weight is not above 1. Of groups (along the first axis) the mean counts. `values` is the
    weight of every channel, above 1, where it is known: without a mask and symbolic shapes.
    """
    keep = jnp.asarray(momentum(state.count)) if callable(momentum) else momentum
    mean, var = batch.mean, batch.var
    if values is not None:
        var = var * (values / (values - 1)) if unbiased else var
        if grouped:
            mean, var = mean.mean(0), var.mean(0)
        mean, var = (_average(*pair, keep) for pair in ((state.mean, mean), (state.var, var)))
        return BatchNormState(mean, var, state.count + 1)

    weight = like(mean, batch.weight)
    has_mean = weight > 0
    has_var = weight > 1 if unbiased else has_mean
    if unbiased:
        var = var * (weight / jnp.where(has_var, weight - 1, 1))
    if grouped:
        (has_mean, mean), (has_var, var) = _mean_of_groups(mean, has_mean), _mean_of_groups(var, has_var)
    return BatchNormState(
        mean=jnp.where(has_mean, _average(state.mean, mean, keep), state.mean),
        var=jnp.where(has_var, _average(state.var, var, keep), state.var),
        count=state.count + jnp.any(has_mean).astype(jnp.int32),
    )


def _mean_of_groups(statistic: jax.Array, has: jax.Array) -> tuple[jax.Array, jax.Array]:
    weight, mean = weighted_mean(statistic, has.astype(jnp.float32), (0,))
    return weight > 0, mean


def _average(old: jax.Array, new: jax.Array, keep: jax.Array | float) -> jax.Array:
    dtype = promote(old.dtype, new.dtype)
    if isinstance(keep, jax.Array):
        keep = keep.astype(dtype)
    return keep * old.astype(dtype) + (1 - keep) * new.astype(dtype)
