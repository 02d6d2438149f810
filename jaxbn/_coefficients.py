"""The per-channel vectors of the normalization."""

import jax
import jax.numpy as jnp

from jaxbn._moments import Moments
from jaxbn._normalize import Vectors
from jaxbn._renorm import BatchRenorm, corrections
from jaxbn._root import inverse_root
from jaxbn._state import BatchNormParams, BatchNormState


def coefficients(
    params: BatchNormParams,
    state: BatchNormState | None,
    batch: Moments,
    epsilon: float | jax.Array,
    renorm: BatchRenorm | None,
    dtype: jnp.dtype,
) -> Vectors:
    """The vectors of y = (x − shift) · multiplier + offset, all of one shape, computed in `dtype`.

    multiplier = γ r / √(σ² + ε)    offset = β + γ d − (μ − shift) · multiplier

    Without renormalization, r = 1 and d = 0.
    """
    shift, remainder = batch.shift.astype(dtype), batch.offset.astype(dtype)
    multiplier = inverse_root(batch.var.astype(jnp.finfo(dtype).dtype), epsilon).astype(dtype)
    correction = jnp.zeros_like(multiplier)
    if renorm is not None and state is not None:
        r, d = corrections(renorm, state, batch, epsilon)
        multiplier, correction = multiplier * r.astype(dtype), d.astype(dtype)
    if params.scale is not None:
        scale = params.scale.astype(dtype)
        multiplier, correction = multiplier * scale, correction * scale
    offset = correction - remainder * multiplier
    if params.bias is not None:
        offset = offset + params.bias.astype(dtype)
    return Vectors(shift, multiplier, offset)
