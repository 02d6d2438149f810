"""Contrastive learning on many devices: statistics of all devices (SimCLR), or shuffled groups (MoCo).

    python examples/contrastive_devices.py

Both views of an image lie on the same device. If each device normalises by its own rows, the statistics tell the
network which rows belong together, and it learns from them instead of from the images. SimCLR shares the statistics:
`axis_name=`. MoCo shuffles the rows first, so that groups of statistics are not groups of pairs: `ghost_batch_size=`
on a permuted batch. The program runs on the available CPU devices, 8 if it is run as a script.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import jaxbn

ROWS, FEATURES, WIDTH = 4, 6, 8  # rows per device


def embed(params: Any, state: Any, x: jax.Array, **options: Any) -> tuple[jax.Array, Any]:  # noqa: ANN401
    """A dense layer with its norm; the results are unit vectors."""
    x, state = jaxbn.batch_norm(params["norm"], state, x @ params["kernel"], True, activation="relu", **options)
    return x / jnp.linalg.norm(x + 1e-6, axis=1, keepdims=True), state


def contrast(a: jax.Array, others: jax.Array, first: jax.Array | int = 0) -> jax.Array:
    """InfoNCE: row i of `a` should be closest to its other view, row `first + i` of `others`."""
    log_probabilities = jax.nn.log_softmax(a @ others.T / 0.5)
    return -log_probabilities[jnp.arange(len(a)), first + jnp.arange(len(a))].mean()


def loss(params: Any, state: Any, views: jax.Array, axis_name: str | None = None) -> Any:  # noqa: ANN401
    """SimCLR: both views go through the network as one batch, so that they share their statistics as well."""
    z, state = embed(params, state, jnp.concatenate(views), axis_name=axis_name)
    a, b = jnp.split(z, 2)
    if axis_name is None:
        return contrast(a, b), state
    others = jax.lax.all_gather(b, axis_name, tiled=True)
    value = contrast(a, others, first=jax.lax.axis_index(axis_name) * len(a))
    return jax.lax.pmean(value, axis_name), state


def shuffled(params: Any, state: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:  # noqa: ANN401
    """MoCo: groups of random rows are normalised together and returned in the original order."""
    order = jax.random.permutation(key, len(x))
    z, state = embed(params, state, x[order], ghost_batch_size=ROWS)
    return z[jnp.argsort(order)], state


def main() -> None:
    """Compare many devices with one, and shuffled groups with groups in order."""
    devices = jax.device_count()
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    images = jax.random.normal(jax.random.key(0), (devices * ROWS, FEATURES))
    images += 3 * jnp.repeat(jax.random.normal(jax.random.key(3), (devices, FEATURES)), ROWS, 0)  # devices differ
    views = images + 0.1 * jax.random.normal(jax.random.key(1), (2, *images.shape))
    norm, state = jaxbn.init(WIDTH)
    params = {"kernel": jax.random.normal(jax.random.key(2), (FEATURES, WIDTH)), "norm": norm}

    sharded = PartitionSpec(None, "devices")
    whole, spread = PartitionSpec(), partial(loss, axis_name="devices")
    on_many = jax.shard_map(spread, mesh=mesh, in_specs=(whole, whole, sharded), out_specs=(whole, whole))
    results = [jax.jit(jax.value_and_grad(f, has_aux=True))(params, state, views) for f in (loss, on_many)]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *results)
    print(f"SimCLR on {devices} devices gives the loss, gradients and statistics of one device: {results[0][0][0]:.4f}")

    in_order, _ = embed(params, state, images, ghost_batch_size=ROWS)
    mixed, _ = jax.jit(shuffled)(params, state, images, jax.random.key(4))
    together, _ = embed(params, state, images)

    def error(z: jax.Array) -> float:
        return float(jnp.abs(z - together).mean())

    print(f"difference from statistics of all rows: groups in order {error(in_order):.3f}, shuffled {error(mixed):.3f}")
    if devices > 1:
        assert error(mixed) < error(in_order)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    main()
