"""How exact is each library's batch normalization on data that is hard?

    python -m benchmarks.any_data [--seeds N] [--markdown] [--json FILE]

Two tables, a row for each kind of `benchmarks.adversarial`. An entry is the largest |error| / max(1, |y|) of all
channels and seeds, against float64 on the same float32 input: of each library, and of jaxbn's ways to hide, weigh,
divide and share a batch. Takes about five minutes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import jax
import numpy as np
import tyro

from benchmarks import harness, peers
from benchmarks.adversarial import KINDS, channels
from benchmarks.case import Case
from benchmarks.exactness import exact, exact_in_groups
from benchmarks.ways import WAYS

SHAPES = ((64,), (8, 3, 8), (64, 7, 9))  # of what is reduced
PEERS = ("jaxbn", "Flax", "Flax two-pass", "PyTorch")


@dataclass(frozen=True)
class Options:
    """How exact is each library's batch normalization on data that is hard?"""

    seeds: int = 42
    """How often the channels of all kinds are drawn, for each of three shapes: 20,000 channels."""
    markdown: bool = False
    """Print tables to paste into the documentation."""
    json: Path | None = None
    """Also write every number to this file."""


def make_case(shape: tuple[int, ...], seeds: int) -> tuple[Case, np.ndarray]:
    """All channels of all kinds, side by side; and the kind of each."""
    drawn = {kind: [channels(kind, prod(shape), seed) for seed in range(seeds)] for kind in KINDS}
    parts = {kind: np.concatenate(each, -1) for kind, each in drawn.items()}
    x = np.concatenate(list(parts.values()), -1).reshape(*shape, -1)
    ones = np.ones(x.shape[-1], np.float32)
    return Case(x, ones, 0 * ones, np.ones_like(x)), np.repeat(list(parts), [part.shape[-1] for part in parts.values()])


def errors(y: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The largest of each channel; infinite where one is not a number."""
    error = np.abs(np.asarray(y, np.float64) - expected) / np.maximum(1, np.abs(expected))
    return np.nan_to_num(error.max(tuple(range(error.ndim - 1))), nan=np.inf)


def show(title: str, worst: dict[tuple[str, str], float], names: Sequence[str], markdown: bool) -> None:
    """A row for each kind, a column for each name."""
    rows = [[kind, *(f"{worst[kind, name]:.1e}" for name in names)] for kind in KINDS]
    harness.show_table(title, ["largest error", *names], rows, markdown)


def main(options: Options) -> None:
    """Measures and prints."""
    jax.config.update("jax_num_cpu_devices", 8)
    libraries = [peer for peer in peers.available() if peer.name in PEERS]
    facts = harness.environment()
    harness.show_facts(facts)
    worst: dict[tuple[str, str], float] = defaultdict(float)
    tried = 0
    for shape in SHAPES:
        case, kinds = make_case(shape, options.seeds)
        tried += len(kinds)
        expected = exact(case)[0]
        found = {peer.name: errors(peer.result_and_gradient(case)[0], expected) for peer in libraries}
        for way in WAYS:
            found[way.name] = errors(way.result_and_gradient(case)[0], exact_in_groups(case, way)[0])
        for name, error in found.items():
            for kind in KINDS:
                worst[kind, name] = max(worst[kind, name], float(error[kinds == kind].max()))
    title = f"{tried:,} channels, float32"
    show(title, worst, [peer.name for peer in libraries], options.markdown)
    show(f"jaxbn's ways, {title}", worst, [way.name for way in WAYS], options.markdown)
    records = [{"kind": kind, "name": name, "error": error} for (kind, name), error in worst.items()]
    harness.save_json(options.json, options, facts | {"channels": tried}, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
