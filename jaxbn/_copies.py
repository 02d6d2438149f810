"""Copies of per-channel vectors, and of x, that the compiler does not merge.

XLA's fast reductions on CPU fuse the elementwise operations in front of a sum, including broadcasts of per-channel
vectors, but only if nothing else uses them. A broadcast shared with another reduction is written out at the size of
`x` instead, which costs more than the reduction. So each reduction reads its vectors through copies of its own. In the
same way, a reduction absorbs the conversion of a narrower x, if it is its own. docs/performance.md has the
measurements.
"""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp

Arrays = TypeVar("Arrays")  # an array, or a tree of arrays


def clamped_copy(vector: jax.Array) -> jax.Array:
    """The vector, clamped to at least the smallest finite value. No compiler merges it, and no finite value changes."""
    return vector if jnp.iscomplexobj(vector) else jnp.maximum(vector, jnp.finfo(vector.dtype).min)


def widened(x: jax.Array, dtype: jnp.dtype, copy: int) -> jax.Array:
    """`x` in a wider type; on a CPU, the conversions of different copies are not merged.

    Copy 0 is the same on every platform. On a GPU a barrier would cost a pass over `x`.
    """
    return _converted(x, dtype, copy) if copy and x.dtype != dtype else x.astype(dtype)


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _converted(x: jax.Array, dtype: jnp.dtype, copy: int) -> jax.Array:
    return apart(x, copy).astype(dtype)


@partial(jax.jit, static_argnums=1, inline=True)
def apart(arrays: Arrays, copy: int) -> Arrays:
    """The same arrays; on a CPU, different copies are not merged.

    They stand behind different numbers of barriers, which the compiler removes once it no longer merges.
    """
    return jax.lax.platform_dependent(arrays, cpu=partial(_behind_barriers, copy), default=lambda arrays: arrays)


def _behind_barriers(count: int, arrays: Arrays) -> Arrays:
    for _ in range(count):
        arrays = jax.lax.optimization_barrier(arrays)
    return arrays
