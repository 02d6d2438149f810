"""The checkpoint policy for norms: which of their values the backward pass keeps."""

from functools import partial
from typing import TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name

_INPUT, _STATISTICS = "jaxbn_input", "jaxbn_statistics"
Tree = TypeVar("Tree")

save_pre_norm = jax.checkpoint_policies.save_only_these_names(_INPUT, _STATISTICS)
"""A policy for `jax.checkpoint` that keeps only the inputs of norms and their statistics for the backward pass.

The normalised and activated arrays are computed again in the backward pass. JAX then keeps one array per layer between
the passes instead of two, in a network of convolutions, norms and activations. Within one jitted program, the compiler
decides what is kept.

Example:
    >>> import jax, jax.numpy as jnp, jaxbn
    >>> params, state = jaxbn.init(2)
    >>> layer = lambda x: jaxbn.batch_norm(params, state, x, train=True, activation="relu")[0]
    >>> lean = jax.checkpoint(layer, policy=jaxbn.save_pre_norm)

Source: Rota Bulò, Porzi & Kontschieder, "In-Place Activated BatchNorm for Memory-Optimized Training of DNNs", 2018.

"""


# The parts of a norm that are computed again for the backward pass instead of kept. Within one program the compiler may
# share the two computations: a barrier between them would move a tenth more memory in a ResNet compiled for a TPU.
recomputed = partial(jax.checkpoint, prevent_cse=False)


def name_input(x: jax.Array) -> jax.Array:
    """Mark the input of a norm."""
    return checkpoint_name(x, _INPUT)


def name_statistics(vectors: Tree) -> Tree:
    """Mark the vectors that a norm computes from its input."""
    return jax.tree.map(lambda v: checkpoint_name(v, _STATISTICS), vectors)
