"""Batch renormalization: in training, the batch's statistics, corrected within bounds towards the running ones."""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxbn._hyperparameter import hyperparameter, to_dtype, within, written
from jaxbn._moments import Moments
from jaxbn._root import deviation
from jaxbn._schedules import Schedule
from jaxbn._state import BatchNormState


class BatchRenorm(NamedTuple):
    """The bounds of batch renormalization, the argument `renorm` of `jaxbn.batch_norm`.

    With the batch's μ_B and σ_B² and the running μ and σ² before the update:

        r = clip(√(σ_B² + ε) / √(σ² + ε), 1/r_max, r_max)
        d = clip((μ_B − μ) / √(σ² + ε), −d_max, d_max)
        y = γ (x̂ r + d) + β

    No gradient flows through r and d. With r_max = 1 and d_max = 0 this is plain batch normalization; with both
    infinite, training normalises with the running statistics.

    Attributes:
        r_max: at least 1: a number, or a schedule, a function of the number of updates so far.
        d_max: at least 0: a number, or a schedule.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.init(1)
        >>> x = jnp.array([[4.0], [6.0]])  # the running statistics are mean 0, variance 1
        >>> y, _ = jaxbn.batch_norm(params, state, x, train=True, renorm=jaxbn.BatchRenorm(3.0, 5.0))
        >>> bool(jnp.allclose(y, x))  # r = 1 and d = 5 undo what the batch did
        True

    Source: Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models", 2017.

    Differs elsewhere: the BatchRenorm of sbx and of purejaxql divides by √(σ_B²/r² + ε), where the paper multiplies
    (x − μ_B) / √(σ_B² + ε) by r. The two agree for small ε.

    """

    r_max: ArrayLike | Schedule
    d_max: ArrayLike | Schedule


@dataclass(frozen=True)
class Ramp:
    """The schedule that rises linearly from `low` to `high` between two numbers of updates."""

    low: float
    high: float
    begin: int
    end: int

    def __call__(self, count: ArrayLike) -> jax.Array:
        """The bound after `count` updates."""
        share = (jnp.asarray(count, float) - self.begin) / (self.end - self.begin)
        return self.low + (self.high - self.low) * jnp.clip(share, 0.0, 1.0)


def batch_renorm_ramp(
    *, plain: int = 5_000, r_max: float = 3.0, r_steps: int = 40_000, d_max: float = 5.0, d_steps: int = 25_000
) -> BatchRenorm:
    """The bounds of the batch renormalization paper: plain batch normalization first, then bounds that widen linearly.

    With t the number of updates so far:

        r_max(t) = 1 + (r_max − 1) · clip((t − plain) / (r_steps − plain), 0, 1)
        d_max(t) = d_max · clip((t − plain) / (d_steps − plain), 0, 1)

    Args:
        plain: the number of updates with r_max = 1 and d_max = 0.
        r_max: the final bound of r.
        r_steps: the number of updates after which r_max is reached.
        d_max: the final bound of d.
        d_steps: the number of updates after which d_max is reached. The three default numbers of updates are the
            paper's, for a training of 160,000 updates.

    Returns:
        A `jaxbn.BatchRenorm` with two schedules. Results of the same arguments are equal and hash alike.

    Raises:
        TypeError: a bound is not a number, or it is traced.
        ValueError: a bound is out of range, or a ramp ends before it begins.

    Example:
        >>> import jaxbn
        >>> ramp = jaxbn.batch_renorm_ramp(plain=10, r_steps=30, d_steps=20)
        >>> [(float(ramp.r_max(t)), float(ramp.d_max(t))) for t in (0, 10, 15, 20, 99)]
        [(1.0, 0.0), (1.0, 0.0), (1.5, 2.5), (2.0, 5.0), (3.0, 5.0)]

    Source: Ioffe 2017, section 4.1.

    """
    bounds = [_bound(name, value) for name, value in (("r_max", r_max), ("d_max", d_max))]
    if not all(isinstance(bound, float) for bound in bounds):
        raise TypeError(f"r_max and d_max must be numbers that are known while tracing; got {r_max=}, {d_max=}")
    if not 0 <= plain < min(r_steps, d_steps):
        raise ValueError(
            f"plain must be at least 0, and below r_steps and d_steps; got {plain=}, {r_steps=}, {d_steps=}"
        )
    highest_r, highest_d = map(float, bounds)
    return BatchRenorm(Ramp(1.0, highest_r, plain, r_steps), Ramp(0.0, highest_d, plain, d_steps))


def check_renorm(renorm: BatchRenorm | None, state: BatchNormState | None, dtype: jnp.dtype) -> None:
    """Raise if the bounds are out of range, or if there are no running statistics to correct towards."""
    if renorm is None:
        return
    if not isinstance(renorm, BatchRenorm):
        raise TypeError(f"renorm must be a jaxbn.BatchRenorm(r_max, d_max); got {renorm!r}")
    if state is None:
        raise ValueError(
            "renorm corrects towards the running statistics, and needs a state; got state=None. Pass a "
            "jaxbn.BatchNormState"
        )
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"renorm is for real x, since its bounds are real; got x of {dtype.name}")
    for name, value in renorm._asdict().items():
        if not callable(value):
            _bound(name, value)


def _bound(name: str, value: object, source: str = "") -> float | jax.Array:
    """A bound as a float or an array; raises if it is not one. `source` says where it comes from, for the error."""
    bound, least = hyperparameter(value), {"r_max": 1, "d_max": 0}[name]
    if bound is None or np.shape(bound) != ():
        raise TypeError(
            f"{source}{name} must be a number, or a function of the number of updates that returns one; "
            f"got {written(value)}"
        )
    if not within(bound, least, inf):
        raise ValueError(f"{source}{name} must be at least {least}; got {written(value)}")
    return bound


def corrections(
    renorm: BatchRenorm, state: BatchNormState, batch: Moments, epsilon: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """r and d, of the shape of the batch's moments, without gradient."""
    r_max, d_max = (
        _bound(name, value(state.count), "the value of the schedule ") if callable(value) else _bound(name, value)
        for name, value in renorm._asdict().items()
    )
    own = deviation(batch.var, epsilon)
    running = jnp.maximum(deviation(state.var.astype(own.dtype), epsilon), jnp.finfo(own.dtype).tiny)  # not 0/0
    r_max, d_max = (to_dtype(bound, own.dtype) for bound in (r_max, d_max))
    r = jnp.clip(own / running, 1 / r_max, r_max)
    d = ((batch.shift - state.mean.astype(batch.shift.dtype)) + batch.offset) / running
    return jax.lax.stop_gradient(r), jax.lax.stop_gradient(jnp.clip(d, -d_max, d_max))
