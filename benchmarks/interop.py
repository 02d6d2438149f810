"""How far is jaxbn from each library that it converts from and to, in training and in evaluation?

    python -m benchmarks.interop [--quick] [--markdown] [--json FILE]

Each library's own layer and `jaxbn.batch_norm`, which starts from that layer's arrays and options by `jaxbn.interop`,
are trained on the same ten batches, float32, 32×8×8×16, mean 3 and deviation 2, scale and bias random. The table shows
the largest difference over seeds, steps and channels:

* of the outputs in training, and of the running statistics after each step, relative to the largest;
* of the outputs in evaluation on a fresh batch: "converted", by what the library learned and tracked, converted once it
  has been trained; "both trained", by what each tracked itself.

Equinox differs where it is known to: mode "batch" evaluates with too large a variance, mode "ema" normalises with the
running statistics in training. Takes a few seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

import jaxbn
from benchmarks import harness
from benchmarks.case import OURS
from benchmarks.installed import installed
from benchmarks.live_layers import LIBRARIES, Learned, Live

SHAPE = (32, 8, 8, 16)
STEPS = 10


@dataclass(frozen=True)
class Options:
    """How far is jaxbn from each library?"""

    quick: bool = False
    """One seed and a small array."""
    seeds: int = 3
    markdown: bool = False
    """Print a table to paste into the documentation."""
    json: Path | None = None
    """Also write every number to this file."""


class Step(NamedTuple):
    """The results of a training step on both sides."""

    theirs: np.ndarray
    ours: np.ndarray
    their_state: jaxbn.BatchNormState | None  # as interop converts it
    our_state: jaxbn.BatchNormState | None


def batches(shape: tuple[int, ...], seed: int, steps: int = STEPS, mean: float = 3.0) -> Iterator[np.ndarray]:
    """Batches of normal entries with deviation 2, float32."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        yield (2 * random.standard_normal(shape) + mean).astype(np.float32)


def make_learned(channels: int, seed: int) -> Learned:
    """A scale of about 1 and a bias of about 0."""
    random = np.random.default_rng(seed)
    scale, bias = random.uniform(0.5, 1.5, channels), random.standard_normal(channels)
    return Learned(scale.astype(np.float32), bias.astype(np.float32))


def train_both(live: Live, given: Iterator[np.ndarray]) -> Iterator[Step]:
    """Train the library's layer and ours, which is converted once, before the first step."""
    params, state, options = live.converted()
    for x in given:
        y, state = jaxbn.batch_norm(params, state, x, train=True, **options)
        theirs = live.train(x)
        yield Step(theirs, np.asarray(y), live.converted().state, state)


def measure(live: Live, shape: tuple[int, ...], seed: int) -> dict[str, float]:
    """The differences that the table shows."""
    *given, fresh = batches(shape, seed, STEPS + 1)
    params, _, options = live.converted()
    steps = list(train_both(live, iter(given)))
    last, evaluated = steps[-1], live.evaluate(fresh)
    converted, trained = (
        jaxbn.batch_norm(params, state, fresh, train=False, **options)[0]
        for state in (last.their_state, last.our_state)
    )
    statistics = [(step.their_state, step.our_state) for step in steps if step.their_state and step.our_state]
    return {
        "training": max(difference(step.theirs, step.ours) for step in steps),
        "running mean": max(relative(theirs.mean, ours.mean) for theirs, ours in statistics),
        "running variance": max(relative(theirs.var, ours.var) for theirs, ours in statistics),
        "evaluation, converted": difference(evaluated, converted),
        "evaluation, both trained": difference(evaluated, trained),
    }


def difference(left: Any, right: Any) -> float:
    """The largest difference."""
    return float(np.abs(np.asarray(left, np.float64) - np.asarray(right, np.float64)).max())


def relative(left: Any, right: Any) -> float:
    """The largest difference, in units of the largest value on the right."""
    return difference(left, right) / float(np.abs(np.asarray(right)).max())


def main(options: Options) -> None:
    """Measures and prints."""
    facts = harness.environment()
    harness.show_facts(facts)
    shape, seeds = ((8, 4, 4, 16), 1) if options.quick else (SHAPE, options.seeds)
    records = []
    for name, (module, make) in LIBRARIES.items():
        if installed(module):
            found = [measure(make(make_learned(shape[-1], seed), shape[-1]), shape, seed) for seed in range(seeds)]
            records.append({"library": name} | {key: max(each[key] for each in found) for key in found[0]})
    if not records:
        return
    columns = list(records[0])
    rows = [[record["library"], *(f"{record[key]:.1e}" for key in columns[1:])] for record in records]
    title = f"largest differences to {OURS}, {STEPS} steps, float32, {'×'.join(map(str, shape))}"
    harness.show_table(title, columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
