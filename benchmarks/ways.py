"""The options of `jaxbn.batch_norm` that share, mask or divide a batch, for the benchmarks."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxbn
from benchmarks.case import EPSILON, MOMENTUM, Case


class Way(NamedTuple):
    """One of these options, for arrays of any shape."""

    name: str
    weights: Callable[[tuple[int, ...]], np.ndarray] | None = None  # what to pass as mask, from the shape of x
    groups: int = 1  # ghost batches
    over_devices: str | None = None  # "shard_map" or "jit"

    def result_and_gradient(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """The result and the gradient of `x`."""
        given = [case.x, case.cotangent]
        if self.weights is not None:
            given.append(self.weights(case.x.shape))
        run = partial(self._run, jaxbn.BatchNormParams(jnp.asarray(case.scale), jnp.asarray(case.bias)))
        if self.over_devices is not None:
            mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
            along = PartitionSpec("data")
            given = jax.device_put(given, NamedSharding(mesh, along))
            if self.over_devices == "shard_map":
                run = jax.shard_map(run, mesh=mesh, in_specs=along, out_specs=along)
        y, dx = jax.jit(run)(*given)
        return np.asarray(y), np.asarray(dx)

    def _run(self, params: jaxbn.BatchNormParams, x: jax.Array, g: jax.Array, *mask: jax.Array) -> tuple:
        _, state = jaxbn.init(x.shape[-1])
        options: dict[str, Any] = {"momentum": MOMENTUM, "epsilon": EPSILON, "mask": mask[0] if mask else None}
        if self.groups > 1:
            options["ghost_batch_size"] = len(x) // self.groups
        if self.over_devices == "shard_map":
            options["axis_name"] = "data"
        y, pull = jax.vjp(lambda x: jaxbn.batch_norm(params, state, x, True, **options)[0], x)
        return y, *pull(g)


def _mask(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).random(shape) < 0.7


def _weights(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).choice(np.array([0, 0.5, 1, 3], np.float32), shape)


WAYS = (
    Way("mask", _mask),
    Way("weights", _weights),
    Way("4 ghost batches", groups=4),
    Way("masked ghost", _mask, groups=4),
    Way("shard_map", over_devices="shard_map"),
    Way("masked shard_map", _mask, over_devices="shard_map"),
    Way("jit, sharded", over_devices="jit"),
)
