"""How the running statistics follow the batches."""

from numbers import Real

import jax

from jaxbn._dtypes import promote
from jaxbn._moments import Moments
from jaxbn._state import BatchNormState


def check_momentum(momentum: float) -> None:
    """Raises where `momentum` is no number in [0, 1]."""
    if isinstance(momentum, bool) or not isinstance(momentum, Real):
        raise TypeError(f"momentum must be a Python number in [0, 1]; got {momentum!r}")
    if not 0 <= momentum <= 1:
        raise ValueError(
            "momentum must be in [0, 1]: it is the weight kept by the old statistic (PyTorch's momentum m is 1 − m "
            f"here); got {momentum!r}"
        )


def update(state: BatchNormState, batch: Moments, momentum: float, unbiased: bool) -> BatchNormState:
    """running ← momentum · running + (1 − momentum) · batch, for the mean and the variance."""
    bessel = batch.weight / (batch.weight - 1) if unbiased else 1.0
    return BatchNormState(
        mean=_average(state.mean, batch.mean, momentum),
        var=_average(state.var, batch.var * bessel, momentum),
        count=state.count + 1,
    )


def _average(old: jax.Array, new: jax.Array, momentum: float) -> jax.Array:
    dtype = promote(old.dtype, new.dtype)
    return momentum * old.astype(dtype) + (1 - momentum) * new.astype(dtype)
