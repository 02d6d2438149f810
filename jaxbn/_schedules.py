"""Schedules of the momentum: the weight of the old statistic as a function of the number of updates so far."""

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
    """The momentum schedule that makes the running statistics the plain average over all batches so far.

    After t updates, the old statistic keeps the weight

        t / (t + 1)

    Returns:
        A schedule for the argument `momentum` of `jaxbn.batch_norm`. Two such schedules are equal and hash alike.

    Example:
        >>> import jaxbn
        >>> [round(float(jaxbn.cumulative()(t)), 3) for t in range(4)]
        [0.0, 0.5, 0.667, 0.75]

    Source: PyTorch's `momentum=None`; the recursion of a mean.

    """
    return Cumulative()


def debiased(decay: float) -> Debiased:
    """The momentum schedule of an exponential average without bias towards its initial value.

    The average starts at 0 and is divided by 1 − decayᵗ, the sum of the weights after t updates, as in Adam. For the
    divided average, this is an update in which the old statistic keeps the weight

        decay · (1 − decayᵗ) / (1 − decayᵗ⁺¹)

    The only state it needs is the count t. The first batch replaces the initial statistics.

    Args:
        decay: in [0, 1), the weight that the old average keeps after many updates.

    Returns:
        A schedule for the argument `momentum` of `jaxbn.batch_norm`. Schedules with the same decay are equal and hash
        alike.

    Raises:
        TypeError: `decay` is not a number, or it is traced.
        ValueError: `decay` is out of range.

    Example:
        >>> import jaxbn
        >>> [round(float(jaxbn.debiased(0.9)(t)), 3) for t in (0, 1, 2, 1000)]
        [0.0, 0.474, 0.631, 0.9]

    Source: Haiku's `ExponentialMovingAverage(zero_debias=True)`; Kingma & Ba, "Adam", 2015, section 3.

    Differs elsewhere: Flax, PyTorch and Keras keep the weight of the initial mean 0 and variance 1 in their averages.

    """
    known = _known("decay", decay, 0.99)
    if not 0 <= known < 1:
        raise ValueError(f"decay must be at least 0 and below 1, such as 0.99; got {decay!r}")
    return Debiased(known)


def accumulated(momentum: float | Schedule, steps: int) -> Accumulated:
    """The momentum schedule for gradient accumulation: the statistics decay once per step, not once per small batch.

    With the momentum m, k = `steps` and j = count mod k, the old statistic keeps the weight

        T(j) / T(j + 1)        T(j) = m + (1 − m) · j/k

    After every k batches, the running statistics are m · old + (1 − m) · (the mean of the k batches' statistics). One
    step on all rows at once, with a small batch as `ghost_batch_size`, gives the same.

    Args:
        momentum: in [0, 1], the weight that the old statistic keeps over k batches; or a schedule of it, a function of
            the number of whole steps.
        steps: k, the number of batches per step of the optimizer, as in `optax.MultiSteps`.

    Returns:
        A schedule for the argument `momentum` of `jaxbn.batch_norm`. Schedules with the same arguments are equal and
        hash alike.

    Raises:
        TypeError: `momentum` is neither a number nor a function, or it is traced; `steps` is not an integer.
        ValueError: `momentum` or `steps` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.init(1)
        >>> for batch in (jnp.array([[0.0], [2.0]]), jnp.array([[4.0], [6.0]])):
        ...     _, state = jaxbn.batch_norm(params, state, batch, True, momentum=jaxbn.accumulated(0.9, steps=2))
        >>> print(state.mean.round(3), state.var.round(3))  # 0.1 · 3 and 0.9 · 1 + 0.1 · 1
        [0.3] [1.]

    Source: the recursion of a weighted mean.

    Differs elsewhere: in other libraries the running statistics decay `steps` times per step of the optimizer.

    """
    if not callable(momentum):
        momentum = _known("momentum", momentum, 0.99)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], such as 0.99; got {momentum!r}")
    try:
        number = operator.index(steps)
    except TypeError:
        raise TypeError(f"steps must be an integer, the number of batches per optimizer step; got {steps!r}") from None
    if number < 1 or isinstance(steps, bool):
        raise ValueError(f"steps must be a positive integer, the number of batches per optimizer step; got {steps!r}")
    return Accumulated(momentum, number)


def _known(name: str, value: float, example: float) -> float:
    """The number as a float; raises if it is not a number, or traced."""
    known = hyperparameter(value)
    if not isinstance(known, float):
        raise TypeError(
            f"{name} must be a number that is known while tracing, such as {example}; got {written(value)}. To sweep "
            f"it, pass momentum a function of the count that computes the weight from a traced {name}"
        )
    return known
