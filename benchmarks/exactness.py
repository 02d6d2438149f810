"""How exact is each library's batch normalization when the mean is large against the deviation?

    python -m benchmarks.exactness [--quick] [--markdown] [--json FILE]

Two tables over |mean|/std, each entry the largest of three seeds, float32, 64×14×14×16, unit deviation:

* the largest error of the normalised output against float64 NumPy on the same float32 input;
* the largest error of the gradient of the input, for a random cotangent, relative to the largest exact entry.

Two more of the same for the ways of jaxbn that share, hide or divide a batch: a mask of seven entries in ten, weights,
ghost batches, and the batch over all devices (on a CPU, eight are made) by `jax.shard_map` and by plain `jax.jit`.

Takes a minute or two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks import harness, peers
from benchmarks.case import EPSILON, OURS, Case
from benchmarks.ways import WAYS, Way

Answer = tuple[np.ndarray, np.ndarray]  # the result and the gradient of x

SHAPE = (64, 14, 14, 16)
RATIOS = (0.0, 1.0, 1e2, 1e3, 1e4, 1e5, 1e6)


@dataclass(frozen=True)
class Options:
    """How exact is each library's batch normalization?"""

    quick: bool = False
    """A small array and three ratios."""
    seeds: int = 3
    markdown: bool = False
    """Print tables to paste into the documentation."""
    json: Path | None = None
    """Also write every number to this file."""


def make_case(shape: tuple[int, ...], ratio: float, seed: int) -> Case:
    """Normal entries of mean `ratio` and deviation 1, rounded to float32; scale 1 and bias 0."""
    random = np.random.default_rng(seed)
    x, cotangent = random.standard_normal((2, *shape))
    vector = np.ones(shape[-1], np.float32)
    return Case((x + ratio).astype(np.float32), vector, 0 * vector, cotangent.astype(np.float32))


def exact(case: Case, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The result and the gradient of `x`, in float64; with weights, statistics are weighted, and y where they are 0."""
    x, scale, bias, g = (np.asarray(a, np.float64) for a in case[:4])
    w = np.ones_like(x) if weights is None else weights
    axes = tuple(range(x.ndim - 1))

    def mean(a: np.ndarray) -> np.ndarray:
        return (w * a).sum(axes) / w.sum(axes)

    centred = x - mean(x)
    multiplier = 1 / np.sqrt(mean(np.square(centred)) + EPSILON)
    normalised = centred * multiplier
    dx = (g - w * (g.sum(axes) + normalised * (g * normalised).sum(axes)) / w.sum(axes)) * multiplier * scale
    return normalised * scale + bias, dx


def exact_in_groups(case: Case, way: Way) -> tuple[np.ndarray, np.ndarray]:
    """`exact`, of each ghost batch apart, with the way's weights."""
    weights = np.ones(case.x.shape) if way.weights is None else np.asarray(way.weights(case.x.shape), np.float64)
    split = zip(*(np.split(array, way.groups) for array in (case.x, case.cotangent, weights)), strict=True)
    parts = [exact(case._replace(x=x, cotangent=g), w) for x, g, w in split]
    y, dx = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return y, dx


def errors(found: Sequence[Answer], expected: Sequence[Answer]) -> dict[str, float]:
    """The largest error over the cases of the result, and of the gradient relative to its size; nan if any is nan."""
    pairs = [
        (np.abs(y - exact_y).max(), np.abs(dx - exact_dx).max() / np.abs(exact_dx).max())
        for (y, dx), (exact_y, exact_dx) in zip(found, expected, strict=True)
    ]
    output, gradient = np.max(pairs, axis=0)
    return {"output": float(output), "gradient": float(gradient)}


def show(title: str, records: Sequence[dict[str, Any]], names: Sequence[str], markdown: bool) -> None:
    """A table of the outputs' errors and one of the gradients', a row for each ratio, a column for each name."""
    found = {(record["ratio"], record["library"]): record for record in records}
    ratios = list(dict.fromkeys(record["ratio"] for record in records))
    for key, what in {"output": "the output", "gradient": "the input's gradient, relative"}.items():
        rows = [[f"{ratio:g}", *(f"{found[ratio, name][key]:.1e}" for name in names)] for ratio in ratios]
        harness.show_table(f"largest error of {what}, {title}", ["mean/std", *names], rows, markdown)


def main(options: Options) -> None:
    """Measures and prints."""
    jax.config.update("jax_num_cpu_devices", 8)
    libraries = peers.available()
    facts = harness.environment()
    harness.show_facts(facts)
    shape = (8, 4, 4, 16) if options.quick else SHAPE
    records = []
    for ratio in RATIOS[::3] if options.quick else RATIOS:
        cases = [make_case(shape, ratio, seed) for seed in range(options.seeds)]
        expected = [exact(case) for case in cases]
        for peer in libraries:
            found = [peer.result_and_gradient(case) for case in cases]
            records.append({"ratio": ratio, "library": peer.name, "way": False} | errors(found, expected))
        for way in WAYS:
            found = [way.result_and_gradient(case) for case in cases]
            expected_here = [exact_in_groups(case, way) for case in cases]
            records.append({"ratio": ratio, "library": way.name, "way": True} | errors(found, expected_here))

    size = "×".join(map(str, shape))
    show(f"float32, {size}", records, [peer.name for peer in libraries], options.markdown)
    title = f"{OURS} otherwise, float32, {size}, {jax.device_count()} devices"
    show(title, records, [way.name for way in WAYS], options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
