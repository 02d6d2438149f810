"""What a network should keep of its norms for the backward pass."""

from functools import partial
from typing import TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name

_INPUT, _STATISTICS = "jaxbn_input", "jaxbn_statistics"
Tree = TypeVar("Tree")

save_pre_norm = jax.checkpoint_policies.save_only_these_names(_INPUT, _STATISTICS)
"""A policy for `jax.checkpoint`: keeps the inputs of norms and their statistics, nothing else.

Example:
    >>> import jax, jax.numpy as jnp, jaxbn
    >>> params, state = jaxbn.init(2)
    >>> layer = lambda x: jaxbn.batch_norm(params, state, x, train=True, activation="relu")[0]
    >>> lean = jax.checkpoint(layer, policy=jaxbn.save_pre_norm)

"""


# What of a norm is computed again for the backward pass, instead of kept. In one program the compiler may share the two
# computations: a barrier between them would move a tenth more memory in a ResNet compiled for a TPU.
recomputed = partial(jax.checkpoint, prevent_cse=False)


def name_input(x: jax.Array) -> jax.Array:
    """Marks what a norm reads."""
    return checkpoint_name(x, _INPUT)


def name_statistics(vectors: Tree) -> Tree:
    """Marks the vectors that a norm computes of it."""
    return jax.tree.map(lambda v: checkpoint_name(v, _STATISTICS), vectors)
