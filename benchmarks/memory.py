"""How many bytes does a small ResNet keep for its backward pass: Flax's norm, ours, and `jaxbn.save_pre_norm`?

    python -m benchmarks.memory [--batch-size 16] [--dtype bfloat16] [--json FILE] [--markdown]

A ResNet-18 for 32×32 images. Counted are the bytes of what `jax.vjp` returns, copies once, parameters apart: what JAX
hands from the forward to the backward pass. (Inside one jitted program XLA may recompute more, or less.)
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np
import tyro

import jaxbn
from benchmarks import harness
from benchmarks.norm_act import NormAct, NormName


@dataclass(frozen=True)
class Options:
    """Bytes that a small ResNet keeps for its backward pass."""

    batch_size: int = 16
    dtype: Literal["float32", "bfloat16"] = "float32"
    markdown: bool = False
    """Print the table for pasting into the documentation."""
    json: Path | None = None
    """Where to save the figures."""


class ResNet(nn.Module):
    """ResNet-18 for small images."""

    norm: NormName

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to logits."""
        norm_act = partial(NormAct, self.norm)
        x = norm_act()(nn.Conv(64, (3, 3), use_bias=False, dtype=x.dtype)(x))
        for features, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
            y = norm_act()(nn.Conv(features, (3, 3), stride, use_bias=False, dtype=x.dtype)(x))
            y = nn.Conv(features, (3, 3), use_bias=False, dtype=x.dtype)(y)
            same = x.shape == y.shape
            shortcut = x if same else nn.Conv(features, (1, 1), stride, use_bias=False, dtype=x.dtype)(x)
            x = norm_act()(y, shortcut)
        return nn.Dense(10, dtype=x.dtype)(x.mean((1, 2)))


def kept_bytes(model: nn.Module, x: jax.Array, policy: Any = None) -> int:
    """The bytes that the backward pass of one step needs beside the parameters, copies counted once."""
    variables: Any = jax.jit(model.init)(jax.random.key(0), x)
    statistics = variables["batch_stats"]

    def network(params: Any, x: jax.Array) -> jax.Array:
        logits, _ = model.apply({"params": params, "batch_stats": statistics}, x, mutable=["batch_stats"])
        return logits

    function = network if policy is None else jax.checkpoint(network, policy=policy)
    _, backward = jax.vjp(function, variables["params"], x)
    parameters = {_content(leaf) for leaf in jax.tree.leaves(variables)}
    kept = {_content(leaf): leaf.nbytes for leaf in jax.tree.leaves(backward)}
    return sum(size for content, size in kept.items() if content not in parameters)


def _content(array: jax.Array) -> bytes:
    """A key that is equal for copies of one array and different for arrays with different entries."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


def main(options: Options) -> None:
    """Count, print."""
    x = jax.random.normal(jax.random.key(1), (options.batch_size, 32, 32, 3), options.dtype)
    cases: dict[str, tuple[NormName, Any]] = {
        "Flax": ("flax", None),
        "jaxbn, relu and addition apart": ("jaxbn", None),
        "jaxbn, fused": ("jaxbn-fused", None),
        "jaxbn, fused, save_pre_norm": ("jaxbn-fused", jaxbn.save_pre_norm),
    }
    sizes = {name: kept_bytes(ResNet(norm), x, policy) for name, (norm, policy) in cases.items()}
    records = [{"name": name, "bytes": size, "of_flax": size / sizes["Flax"]} for name, size in sizes.items()]
    rows = [(r["name"], f"{r['bytes'] / 2**20:.1f}", f"{r['of_flax']:.2f}") for r in records]
    facts = harness.environment()
    harness.show_facts(facts)
    title = f"A ResNet-18's activations kept for the backward pass, batch {options.batch_size}, {options.dtype}"
    harness.show_table(title, ("norm", "MiB", "of Flax's"), rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
