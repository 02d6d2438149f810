"""The common part of the plain JAX libraries' steps: one jitted step per batch, with the data on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.steps.data import data, starts

# (parameters, statistics, images) -> (logits, new statistics)
Network = Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]


def jitted(network: Network, params: Any, statistics: Any, batch_size: int) -> Callable[[], jax.Array]:
    """Adam on the mean cross-entropy, batch after batch; returns the last loss.

    Args:
        network: forward pass in training, of float32 images in [0, 1], channels last.
        params: the initial parameters.
        statistics: the initial running statistics.
        batch_size: the number of images per step.

    """
    tx = optax.adam(1e-3)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, statistics, optimizer = state

        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = network(params, statistics, images.astype(jnp.float32) / 255)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, optimizer = tx.update(gradients, optimizer, params)
        return (optax.apply_updates(params, updates), statistics, optimizer), value

    images, labels = map(jnp.asarray, data())
    batches = [(images[i : i + batch_size], labels[i : i + batch_size]) for i in starts(batch_size)]
    program = jax.jit(step, donate_argnums=0)
    state = (params, statistics, tx.init(params))

    def run() -> jax.Array:
        nonlocal state
        value = jnp.zeros(())
        for batch in batches:
            state, value = program(state, *batch)
        return value

    return run
