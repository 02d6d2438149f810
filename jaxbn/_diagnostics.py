"""What a batch tells of a norm's health."""

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
    """A report on each channel; arrays of the shape of the feature axes.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> report = jaxbn.diagnostics(*jaxbn.init(2), jnp.array([[1.0, 7.0], [5.0, 7.0]]))
        >>> isinstance(report, jaxbn.Diagnostics), report.dead.tolist()
        (True, [False, True])

    """

    mean_gap: jax.Array  # (μ_B − μ) / √(σ² + ε): how far off, in running deviations, evaluation sees this batch's mean
    variance_ratio: jax.Array  # (σ_B² + ε) / (σ² + ε): below 1 where the batch varies less than evaluation expects
    output_deviation: jax.Array  # |γ| √(σ_B² / (σ_B² + ε)): of the norm's outputs in training
    dead: jax.Array  # bool: the output deviation is next to nothing, since γ or σ_B² is
    effective_size: jax.Array  # (Σw)² / Σw²: entries that count; of unequal weights, as many as are as informative


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
    """Compares a batch's statistics with the running ones, and looks for channels that say nothing.

    With the batch's μ_B, σ_B² and the running μ, σ², for each channel,

        (μ_B − μ) / √(σ² + ε)        (σ_B² + ε) / (σ² + ε)        |γ| √(σ_B² / (σ_B² + ε))        (Σw)² / Σw²

    Large gaps, or ratios far from 1, in many channels: evaluation does not see what training saw; `jaxbn.recalibrate`
    helps where the running statistics are behind, and nothing where the data differ.

    Args:
        params: γ and β of the norm.
        state: its running statistics.
        x: a batch of its inputs.
        axis: the feature axis, or a tuple of them.
        epsilon: the norm's ε.
        mask: which entries count, or weights, broadcastable to `x`.
        dead_below: a channel whose outputs vary by less than this is called dead.

    Returns:
        `jaxbn.Diagnostics`, arrays of the shape of the feature axes. A channel without weight has gap 0 and ratio 1,
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

    Source, of the effective size: Kish, "Survey Sampling", 1965.

    """
    x, epsilon = check.array(x), check.epsilon(epsilon)
    features = feature_axes(axis, x.ndim)
    if state is None:
        raise TypeError("state must be the running statistics, which the batch's are compared with; got None")
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
    """(Σw)² / Σw², which is Σw over the mean of w in the weights w; 0 where nothing counts."""
    w, _ = in_units(mask, unit_of(mask, x, axes), x, axes)
    weight, mean = weighted_mean(w, w, axes)
    return weight / jnp.where(mean > 0, mean, 1)
