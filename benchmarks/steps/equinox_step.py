"""Equinox: a network for one image, channels first, mapped over the batch."""

from collections.abc import Callable
from typing import Any

import jax

from benchmarks.steps.jitted import jitted


def equinox(batch_size: int) -> Callable[[], jax.Array]:
    """One jitted step per batch."""
    import equinox as eqx

    def make(key: jax.Array) -> Any:
        first, second, third, fourth = jax.random.split(key, 4)

        def block(inputs: int, features: int, key: jax.Array) -> tuple:
            norm = eqx.nn.BatchNorm(features, axis_name="batch", momentum=0.9, mode="batch")
            convolution = eqx.nn.Conv2d(inputs, features, 3, use_bias=False, key=key)
            return convolution, norm, eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)

        dense = eqx.nn.Linear(1600, 256, key=third), eqx.nn.Linear(256, 10, key=fourth)
        return eqx.nn.Sequential([*block(1, 32, first), *block(32, 64, second), eqx.nn.Lambda(jax.numpy.ravel), *dense])

    model, statistics = eqx.nn.make_with_state(make)(jax.random.key(0))
    params, rest = eqx.partition(model, eqx.is_inexact_array)

    def network(params: Any, statistics: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        mapped = jax.vmap(eqx.combine(params, rest), axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return mapped(images.transpose(0, 3, 1, 2), statistics)

    return jitted(network, params, statistics, batch_size)
