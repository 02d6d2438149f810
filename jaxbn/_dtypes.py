"""Which type things are computed in, also where the user forbids implicit promotion."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def promote(*dtypes: DTypeLike) -> jnp.dtype:
    """The type that holds all of them, float32 at least: half precision is never computed in."""
    with jax.numpy_dtype_promotion("standard"):
        result = jnp.dtype(jnp.float32)
        for dtype in dtypes:
            result = jnp.promote_types(result, dtype)
    return result
