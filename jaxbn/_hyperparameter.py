"""Hyperparameters: numbers, or traced arrays whose values are not known, as in a sweep."""

from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike


def hyperparameter(value: object) -> float | jax.Array | None:
    """A float for one known number, an array for several numbers or a traced one, None for anything else.

    Floats stay Python floats, which take the type of the arrays that they are combined with.
    """
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, Real):
        return float(value)
    if not isinstance(value, np.ndarray | jax.Array):
        return None
    if not any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        return None
    return float(value) if value.shape == () and not isinstance(value, Tracer) else jnp.asarray(value)


def within(value: float | jax.Array, least: float, most: float) -> bool:
    """True if every known value lies between `least` and `most`, inclusive. A traced value passes; NaN does not."""
    if isinstance(value, Tracer):
        return True
    known = np.asarray(value)
    return bool(np.all((known >= least) & (known <= most)))


def to_dtype(value: float | jax.Array, dtype: DTypeLike) -> float | jax.Array:
    """`value` ready to be combined with arrays of `dtype`."""
    return value.astype(dtype) if isinstance(value, jax.Array) else value


def written(value: object) -> str:
    """The text of `value` in an error message: type and shape of an array, not its entries."""
    if isinstance(value, np.ndarray | jax.Array) and (value.shape != () or isinstance(value, Tracer)):
        return f"an array of {value.dtype.name} of shape {value.shape}"
    return repr(value)
