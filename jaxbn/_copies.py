"""Copies of a per-channel vector that the compiler does not merge.

XLA's fast reductions on CPU fuse the elementwise operations in front of a sum, including broadcasts of per-channel
vectors, but only if nothing else uses them. A broadcast shared with another reduction is written out at the size of
`x` instead, which costs more than the reduction. So each reduction reads the shift through a copy of its own. A copy is
clamped to the finite range from one side: this changes no finite value, and the compiler cannot merge it with another.
docs/performance.md has the measurements.
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


@partial(jax.jit, inline=True)
def copy_on_gpu(vector: jax.Array) -> jax.Array:
    """A copy on a GPU, the vector itself elsewhere: values computed from both are then computed twice, not shared."""
    return jax.lax.platform_dependent(vector, cuda=copy_above, rocm=copy_above, default=lambda v: v)
