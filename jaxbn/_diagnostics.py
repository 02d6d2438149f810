"""Diagnostics of a norm: a batch's statistics compared with the running ones, and dead channels."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn import _check as check
from jaxbn._axes import entries, feature_axes, reduction_axes
from jaxbn._dtypes import promote
from jaxbn._hyperparameter import to_dtype
from jaxbn._moments import batch_moments
from jaxbn._root import deviation, inverse_root
from jaxbn._state import BatchNormParams, BatchNormState
from jaxbn._sum import weighted_mean
from jaxbn._weights import in_units, unit_of


class Diagnostics(NamedTuple):
    """The result of `jaxbn.diagnostics`: arrays of the shape of the feature axes.

    Attributes:
        mean_gap: (μ_B − μ) / √(σ² + ε), the distance of the batch's mean from the running mean, in running deviations.
        variance_ratio: (σ_B² + ε) / (σ² + ε), below 1 where the batch varies less than the running variance says.
        output_deviation: |γ| √(σ_B² / (σ_B² + ε)), the standard deviation of the norm's output in training.
        dead: bools, True where the output deviation is close to 0, because γ or σ_B² is.
        effective_size: (Σw)² / Σw², the number of values behind each channel's statistics; for unequal weights, the
            number of equally weighted values that are as informative.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> report = jaxbn.diagnostics(*jaxbn.init(2), jnp.array([[1.0, 7.0], [5.0, 7.0]]))
        >>> isinstance(report, jaxbn.Diagnostics), report.dead.tolist()
        (True, [False, True])

    """

    mean_gap: jax.Array
    variance_ratio: jax.Array
    output_deviation: jax.Array
    dead: jax.Array
    effective_size: jax.Array


def diagnostics(
    params: BatchNormParams,
    state: BatchNormState,
    x: ArrayLike,
    *,
    axis: int | Sequence[int] = -1,
    epsilon: ArrayLike = 1e-5,
    mask: ArrayLike | None = None,
    dead_below: float = 1e-3,
) -> Diagnostics:
    """Compare a batch's statistics with the running ones, and find dead channels.

    With the batch's μ_B and σ_B², the running μ and σ², and the weights w of a mask, four numbers per channel:

        mean_gap = (μ_B − μ) / √(σ² + ε)
        variance_ratio = (σ_B² + ε) / (σ² + ε)
        output_deviation = |γ| √(σ_B² / (σ_B² + ε))
        effective_size = (Σw)² / Σw²

    Large gaps, or ratios far from 1, in many channels mean that evaluation normalises differently from training. If the
    running statistics lag behind, `jaxbn.recalibrate` helps; if the data differ, it does not.

    Args:
        params: γ and β of the norm.
        state: the running statistics of the norm.
        x: a batch of inputs of the norm.
        axis: the feature axis, or a tuple of feature axes.
        epsilon: ε of the norm.
        mask: which entries count: bools or weights, broadcastable to `x`.
        dead_below: a channel whose output deviation is below this number is called dead.

    Returns:
        A `jaxbn.Diagnostics`, arrays of the shape of the feature axes. A channel without weight has gap 0 and ratio 1,
        and is not dead.

    Raises:
        TypeError: `state` is None; an argument is of the wrong kind.
        ValueError: shapes disagree; `epsilon` is out of range; the batch has one value per channel.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.init(2)
        >>> report = jaxbn.diagnostics(params, state, jnp.array([[1.0, 7.0], [5.0, 7.0]]), epsilon=0.0)
        >>> print(report.mean_gap, report.variance_ratio, report.dead, report.effective_size)
        [3. 7.] [4. 0.] [False  True] [2. 2.]

    Source: Kish, "Survey Sampling", 1965, for the effective size.

    """
    x, epsilon = check.array(x), check.epsilon(epsilon)
    features = feature_axes(axis, x.ndim)
    if state is None:
        raise TypeError(
            "state must be a jaxbn.BatchNormState(mean, var, count), which the batch's statistics are compared with; "
            "got None"
        )
    check.shapes(check.values(params, state), x.shape, features)
    axes = reduction_axes(features, x.ndim)
    check.count(x.shape, axes, 1)
    weights = check.mask(mask, x.shape)
    batch = batch_moments(x, axes, weights)

    real = batch.var.dtype
    running = state.var.astype(promote(real))
    epsilon = to_dtype(epsilon, real)
    counts = jnp.broadcast_to(batch.weight > 0, batch.shift.shape)
    own, expected = deviation(batch.var, epsilon), deviation(running, epsilon)
    gap = (batch.shift - state.mean.astype(batch.shift.dtype)) + batch.offset
    gap = jnp.where(gap == 0, 0, gap / expected.astype(gap.dtype))
    share = jnp.sqrt(batch.var) * inverse_root(batch.var, epsilon)
    output = share if params.scale is None else share * jnp.abs(params.scale).astype(real)
    if weights is None:
        size = jnp.full(counts.shape, entries(x.shape, axes, real), real)
    else:
        size = _effective_size(weights, x, axes)
    return Diagnostics(
        mean_gap=jnp.where(counts, gap, 0),
        variance_ratio=jnp.where(counts & (own != expected), jnp.square(own / expected), 1),
        output_deviation=output,
        dead=counts & (output < dead_below),
        effective_size=size,
    )


def _effective_size(mask: jax.Array, x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """(Σw)² / Σw², computed as Σw divided by the w-weighted mean of w; 0 where nothing counts."""
    w, _ = in_units(mask, unit_of(mask, x, axes), x, axes)
    weight, mean = weighted_mean(w, w, axes)
    return weight / jnp.where(mean > 0, mean, 1)
