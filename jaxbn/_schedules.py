"""Schedules of the momentum, as values: the weight that the old statistic keeps, by the number of updates so far."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn._hyperparameter import hyperparameter, written

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


@dataclass(frozen=True)
class Accumulated:
    """The schedule T(j) / T(j + 1), with T(j) = m + (1 − m) · j/k."""

    momentum: float | Schedule
    steps: int

    def __call__(self, count: ArrayLike) -> jax.Array:
        """The weight of the old statistic after `count` updates."""
        step, j = jnp.divmod(jnp.asarray(count), self.steps)
        keep = jnp.asarray(self.momentum(step) if callable(self.momentum) else self.momentum, float)
        before, after = (keep + (1 - keep) * (i.astype(float) / self.steps) for i in (j, j + 1))
        return before / after


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
    known = _known("decay", decay, 0.99)
    if not 0 <= known < 1:
        raise ValueError(f"decay must be at least 0 and below 1, such as 0.99; got {decay!r}")
    return Debiased(known)


def accumulated(momentum: float | Schedule, steps: int) -> Accumulated:
    """The momentum under gradient accumulation: after `steps` small batches it has decayed once, not `steps` times.

    With m the momentum, k the steps and j = count mod k, the old statistic keeps the weight

        T(j) / T(j + 1)        T(j) = m + (1 − m) · j/k

    so that after each k batches the running statistics are m · old + (1 − m) · the mean of the k batches'. These are
    the statistics of one step on all rows at once with `ghost_batch_size` rows each.

    Args:
        momentum: in [0, 1], the weight that the old statistic keeps over k batches; or a schedule of it, a function of
            the number of whole steps.
        steps: k, the number of batches that one step of the optimizer takes, such as `optax.MultiSteps` accumulates.

    Returns:
        a schedule for the argument `momentum` of `jaxbn.batch_norm`: a value, equal to those of the same arguments.

    Raises:
        TypeError: `momentum` is not a number that is known while tracing, nor a function; `steps` is no integer.
        ValueError: `momentum` or `steps` is out of its range.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.init(1)
        >>> for batch in (jnp.array([[0.0], [2.0]]), jnp.array([[4.0], [6.0]])):
        ...     _, state = jaxbn.batch_norm(params, state, batch, True, momentum=jaxbn.accumulated(0.9, steps=2))
        >>> print(state.mean.round(3), state.var.round(3))  # 0.1 · 3 and 0.9 · 1 + 0.1 · 1
        [0.3] [1.]

    Source: the recursion of a weighted mean. Other libraries decay `steps` times.

    """
    if not callable(momentum):
        momentum = _known("momentum", momentum, 0.99)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], such as 0.99; got {momentum!r}")
    try:
        number = operator.index(steps)
    except TypeError:
        raise TypeError(f"steps must be an integer; got {steps!r}") from None
    if number < 1 or isinstance(steps, bool):
        raise ValueError(f"steps must be a positive integer, the batches of one step of the optimizer; got {steps!r}")
    return Accumulated(momentum, number)


def _known(name: str, value: float, example: float) -> float:
    """The number as a float; raises where it is none, or traced."""
    known = hyperparameter(value)
    if not isinstance(known, float):
        raise TypeError(
            f"{name} must be a number that is known while tracing, such as {example}; got {written(value)}. To sweep "
            f"it, pass a function of the count that computes the weight from a traced {name}"
        )
    return known
