"""The training step in Haiku."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.steps.jitted import jitted


def haiku(batch_size: int) -> Callable[[], jax.Array]:
    """One jitted step per batch."""
    import haiku as hk

    def forward(x: jax.Array) -> jax.Array:
        for features in (32, 64):
            x = hk.Conv2D(features, 3, padding="VALID", with_bias=False)(x)
            x = jax.nn.relu(hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training=True))
            x = hk.max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return hk.Linear(10)(hk.Linear(256)(hk.Flatten()(x)))

    model = hk.transform_with_state(forward)
    params, statistics = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))

    def network(params: Any, statistics: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        return model.apply(params, statistics, None, images)

    return jitted(network, params, statistics, batch_size)
