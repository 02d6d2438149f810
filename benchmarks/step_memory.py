"""How much memory does the whole training step of a ResNet-50 take where JAX computes, with Flax's norm and with ours?

    python -m benchmarks.step_memory [--batch-size 32] [--image-size 96] [--dtype bfloat16] [...]

Forward, backward and SGD with momentum in one jitted program, compiled and not run: the bytes that the compiler sets
aside beyond parameters, optimiser and images. A compiler that recomputes cheap operations itself, as XLA does,
leaves less to be saved than `python -m benchmarks.memory` counts, and one that drops the barriers of `jax.checkpoint`,
as it does on a CPU, keeps what it was told to recompute. `python -m benchmarks.accelerators` compiles for GPUs and TPUs
that are not there, and counts the bytes that are moved.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import harness
from benchmarks.compiled.step import Remat, resnet50
from benchmarks.norm_act import NormName


@dataclass(frozen=True)
class Options:
    """Memory of the whole training step of a ResNet-50."""

    batch_size: int = 32
    image_size: int = 96
    dtype: Literal["float32", "bfloat16"] = "float32"
    markdown: bool = False
    """Print the table for pasting into the documentation."""
    json: Path | None = None
    """Where to save the figures."""


def main(options: Options) -> None:
    """Compiles, prints."""
    cases: dict[str, tuple[NormName, Remat]] = {
        "Flax": ("flax", "none"),
        "jaxbn, relu and addition apart": ("jaxbn", "none"),
        "jaxbn, fused": ("jaxbn-fused", "none"),
        "Flax, blocks recomputed": ("flax", "blocks"),
        "jaxbn, fused, blocks recomputed": ("jaxbn-fused", "blocks"),
    }
    records = []
    for name, (norm, remat) in cases.items():
        program: Any = resnet50(None, norm, remat, options.batch_size, options.image_size, options.dtype).compile()
        size = program.memory_analysis().temp_size_in_bytes
        records.append({"name": name, "bytes": size, "of_flax": size / (records[0]["bytes"] if records else size)})
    rows = [(r["name"], f"{r['bytes'] / 2**20:,.0f}", f"{r['of_flax']:.2f}") for r in records]
    facts = harness.environment()
    harness.show_facts(facts)
    size = f"{options.image_size}×{options.image_size}, batch {options.batch_size}, {options.dtype}"
    columns = ("norm", "MiB beside parameters", "of Flax's")
    harness.show_table(f"A ResNet-50's training step, {size}", columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
