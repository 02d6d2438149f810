"""Flax alone, with `nn.Conv`, `nn.BatchNorm` and `nn.max_pool`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.steps.jitted import jitted


class PlainCNN(nn.Module):
    """The network as its users write it."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images to logits."""
        for features in (32, 64):
            x = nn.Conv(features, (3, 3), padding="VALID", use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(nn.Dense(256)(x.reshape(x.shape[0], -1)))


def plain_flax(batch_size: int) -> Callable[[], jax.Array]:
    """One jitted step per batch."""
    model = PlainCNN()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)

    def network(params: Any, statistics: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": statistics}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits, updated["batch_stats"]

    return jitted(network, variables["params"], variables["batch_stats"], batch_size)
