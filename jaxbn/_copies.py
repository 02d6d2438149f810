"""Copies of a channel vector that the compiler keeps apart.

XLA's fast reductions on CPU absorb the elementwise operations in front of a sum, broadcasts of channel vectors
included, but only where nothing else uses them. A broadcast shared with another reduction is written out at the size of
`x` instead, which costs more than the reduction. So each reduction takes the shift through a copy of its own: clamped
to the finite range from one side, which changes no finite value, and which the compiler cannot merge with another.
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
def copy_on_accelerators(vector: jax.Array) -> jax.Array:
    """On a CPU the vector itself, elsewhere a copy: what is made of it twice is then computed twice."""
    return jax.lax.platform_dependent(vector, cpu=lambda v: v, default=copy_above)
