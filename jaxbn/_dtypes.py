"""Types: the computing dtype, even where the user forbids implicit promotion, and how messages name a value."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def promote(*dtypes: DTypeLike) -> jnp.dtype:
    """The type that holds all of them, at least float32: nothing is computed in half precision."""
    with jax.numpy_dtype_promotion("standard"):
        result = jnp.dtype(jnp.float32)
        for dtype in dtypes:
            result = jnp.promote_types(result, dtype)
    return result


def can_compute(dtype: DTypeLike) -> bool:
    """True for floating and complex types of at least 16 bits; float8 and float4 do not promote to float32."""
    return jnp.issubdtype(dtype, jnp.inexact) and jnp.dtype(dtype).itemsize > 1


def at_least_16_bits(dtype: DTypeLike) -> str:
    """A condition on a type, for an error: empty unless it is the condition that is not met."""
    return " and of 16 bits at least" if jnp.issubdtype(dtype, jnp.inexact) else ""


def described(value: object) -> str:
    """The name of a value in a message: type and shape for an array, the Python type for anything else."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return f"{value.dtype.name} of shape {value.shape}"
    return "None" if value is None else type(value).__name__
