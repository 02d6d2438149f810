"""Copies of a per-channel vector, and of x, that the compiler does not merge.

XLA's fast reductions on CPU fuse the elementwise operations in front of a sum, including broadcasts of per-channel
vectors, but only if nothing else uses them. A broadcast shared with another reduction is written out at the size of
`x` instead, which costs more than the reduction. So each reduction reads the shift through a copy of its own. A copy is
clamped to the finite range from one side: this changes no finite value, and the compiler cannot merge it with another.
In the same way, a reduction absorbs the conversion of a narrower x, if it is its own. docs/performance.md has the
measurements.
"""

from functools import partial

import jax
import jax.numpy as jnp


def copy_below(vector: jax.Array) -> jax.Array:
    """The vector, clamped to at most the largest finite value."""
    return vector if jnp.iscomplexobj(vector) else jnp.minimum(vector, jnp.finfo(vector.dtype).max)


def copy_above(vector: jax.Array) -> jax.Array:
    """The vector, clamped to at least the smallest finite value."""
    return vector if jnp.iscomplexobj(vector) else jnp.maximum(vector, jnp.finfo(vector.dtype).min)


def widened(x: jax.Array, dtype: jnp.dtype, copy: int) -> jax.Array:
    """`x` in a wider type; on a CPU, the conversions of different copies are not merged.

    They stand behind different numbers of barriers, which the compiler removes once it no longer merges. On a GPU a
    barrier would cost a pass over `x`. Copy 0 has no barrier, and is the same on every platform.
    """
    return _converted(x, dtype, copy) if copy and x.dtype != dtype else x.astype(dtype)


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _converted(x: jax.Array, dtype: jnp.dtype, copy: int) -> jax.Array:
    return jax.lax.platform_dependent(x, cpu=partial(_behind_barriers, copy), default=lambda x: x).astype(dtype)


def _behind_barriers(count: int, x: jax.Array) -> jax.Array:
    for _ in range(count):
        x = jax.lax.optimization_barrier(x)
    return x
