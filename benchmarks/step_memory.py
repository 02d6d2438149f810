"""How much memory does the whole training step of a ResNet-50 take, and move, with Flax's norm and with ours?

    python -m benchmarks.step_memory [--batch-size 32] [--image-size 96] [--dtype bfloat16] [--topology v5e:2x2] [...]

Forward, backward and SGD with momentum in one jitted program, compiled and not run: the bytes that the compiler sets
aside beside parameters, optimiser and images, and the bytes that its operations read and write. A compiler that
recomputes cheap operations of itself, as XLA does, leaves less to be saved than `python -m benchmarks.memory` counts,
and one that drops the barriers of `jax.checkpoint`, as it does on a CPU, keeps what it was told to recompute. For a TPU
it can be compiled without one, where libtpu is installed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import tyro
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import jaxbn
from benchmarks import harness
from benchmarks.memory import FlaxNormAct, FusedNormAct, SeparateNormAct

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # features and blocks


@dataclass(frozen=True)
class Options:
    """Memory of the whole training step of a ResNet-50."""

    batch_size: int = 32
    image_size: int = 96
    dtype: Literal["float32", "bfloat16"] = "float32"
    topology: str | None = None
    """Compile for a chip of this TPU, such as v5e:2x2: needs libtpu, and no TPU."""
    markdown: bool = False
    """Print the table for pasting into the documentation."""
    json: Path | None = None
    """Where to save the figures."""


class ResNet50(nn.Module):
    """Bottlenecks of 1×1, 3×3 and 1×1 convolutions; the shortcut's convolution has no norm of its own."""

    norm_act: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to logits."""
        x = self.norm_act()(nn.Conv(64, (7, 7), 2, use_bias=False, dtype=x.dtype)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, (features, blocks) in enumerate(STAGES):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                y = self.norm_act()(nn.Conv(features, (1, 1), use_bias=False, dtype=x.dtype)(x))
                y = self.norm_act()(nn.Conv(features, (3, 3), stride, use_bias=False, dtype=x.dtype)(y))
                y = nn.Conv(4 * features, (1, 1), use_bias=False, dtype=x.dtype)(y)
                same = x.shape == y.shape
                shortcut = x if same else nn.Conv(4 * features, (1, 1), stride, use_bias=False, dtype=x.dtype)(x)
                x = self.norm_act()(y, shortcut)
        return nn.Dense(1000, dtype=x.dtype)(x.mean((1, 2)))


def compiled_step(norm_act: Callable[[], nn.Module], options: Options, policy: Any = None) -> jax.stages.Compiled:
    """The training step, compiled and not run."""
    model, tx = ResNet50(norm_act), optax.sgd(0.1, momentum=0.9)
    shape = (options.batch_size, options.image_size, options.image_size, 3)
    images, labels = jax.ShapeDtypeStruct(shape, options.dtype), jax.ShapeDtypeStruct(shape[:1], jnp.int32)

    def step(variables: Any, momenta: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        def network(params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
            given = {"params": params, "batch_stats": variables["batch_stats"]}
            return model.apply(given, images, mutable=["batch_stats"])

        def loss(params: Any) -> tuple[jax.Array, Any]:
            function = network if policy is None else jax.checkpoint(network, policy=policy)
            logits, updated = function(params, images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
            return losses.mean(), updated["batch_stats"]

        gradients, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        updates, momenta = tx.update(gradients, momenta)
        return {"params": optax.apply_updates(variables["params"], updates), "batch_stats": statistics}, momenta

    variables: Any = jax.eval_shape(model.init, jax.random.key(0), images)
    momenta = jax.eval_shape(tx.init, variables["params"])
    program = jax.jit(step, donate_argnums=(0, 1), in_shardings=_place(options.topology))
    return program.lower(variables, momenta, images, labels).compile()


def _place(topology: str | None) -> SingleDeviceSharding | None:
    """The first chip of a TPU, which need not be there; None: where JAX computes."""
    if topology is None:
        return None
    return SingleDeviceSharding(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0])


def main(options: Options) -> None:
    """Compiles, prints."""
    cases = {
        "Flax": (FlaxNormAct, None),
        "jaxbn, relu and addition apart": (SeparateNormAct, None),
        "jaxbn, fused": (FusedNormAct, None),
        "jaxbn, fused, save_pre_norm": (FusedNormAct, jaxbn.save_pre_norm),
    }
    records = []
    for name, (norm_act, policy) in cases.items():
        program: Any = compiled_step(norm_act, options, policy)
        size, moved = program.memory_analysis().temp_size_in_bytes, program.cost_analysis()["bytes accessed"]
        first = records[0] if records else {"bytes": size, "moved": moved}
        shares = {"of_flax": size / first["bytes"], "moved_of_flax": moved / first["moved"]}
        records.append({"name": name, "bytes": size, "moved": moved, **shares})
    rows = [
        (
            r["name"],
            f"{r['bytes'] / 2**20:,.0f}",
            f"{r['of_flax']:.2f}",
            f"{r['moved'] / 2**30:.2f}",
            f"{r['moved_of_flax']:.2f}",
        )
        for r in records
    ]
    facts = harness.environment()
    harness.show_facts(facts)
    size = f"{options.image_size}×{options.image_size}, batch {options.batch_size}, {options.dtype}"
    columns = ("norm", "MiB beside parameters", "of Flax's", "GiB moved", "of Flax's")
    harness.show_table(f"A ResNet-50's training step, {size}", columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
