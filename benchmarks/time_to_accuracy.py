"""How long does `python -m train` take to 99.0, 99.4 and 99.5% on MNIST?

    python -m benchmarks.time_to_accuracy --data-dir DIR [--quick] [--epochs 0.5 1.8 5] [--seeds 10] [--json FILE]

The default recipe, at lengths in epochs: one-cycle's accuracy counts at the end of a run only. Each seed is a run of
its own, initialised and shuffled by it, and compiled anew. Seeds begin at 100: the recipe was chosen with others, on a
part of the training set. Training time is that of the steps; compiling and measuring the accuracy, on all 10,000 test
images, come on top. PyTorch trains the same network by the same recipe, seed after seed, if it is installed.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import tyro

from benchmarks import harness, torch_recipe
from benchmarks.case import OURS
from benchmarks.installed import installed
from train.config.sections import Config, with_options
from train.data import Dataset, load
from train.data.published import DatasetUnavailableError
from train.training import loop
from train.training.plan import make_plan

FIRST_SEED = 100


@dataclass(frozen=True)
class Options:
    """Accuracy of the default recipe by length, and its training time, here and in PyTorch."""

    quick: bool = False
    """Half an epoch and three seeds."""
    data_dir: Path | None = None
    """Folder with MNIST's IDX files; None: MNIST through tensorflow-datasets."""
    epochs: tuple[float, ...] = (0.5, 1.8, 5)
    seeds: int = 10
    targets: tuple[float, ...] = (0.99, 0.994, 0.995)
    """The accuracies that runs are counted by."""
    torch: bool = True
    """Also train in PyTorch."""
    json: Path | None = None
    """Where to save the figures."""
    markdown: bool = False
    """Print the table for pasting into the documentation."""


class Outcome(NamedTuple):
    """The accuracy and the times of one run."""

    accuracy: float  # on the test set, after the last epoch
    loss: float
    train_seconds: float
    compile_seconds: float


def train(dataset: Dataset, epochs: float, seed: int) -> Outcome:
    """One run of the default recipe."""
    config = with_options(Config(), epochs=epochs, seed=seed)
    plan = make_plan(config, dataset)
    state = loop.initial_state(plan)
    programs = loop.compile_programs(plan, state)
    *_, last = (snapshot.event for snapshot in loop.run(plan, programs, state))
    assert isinstance(last, loop.Epoch)
    return Outcome(last.test_accuracy, last.test_loss, last.train_seconds, programs.seconds)


def train_in_torch(dataset: Dataset, epochs: float, seed: int) -> Outcome:
    """One run of the default recipe in PyTorch."""
    return Outcome(*torch_recipe.train(with_options(Config(), epochs=epochs, seed=seed), dataset), compile_seconds=0)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation, and the range."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main(options: Options) -> None:
    """Trains, prints, saves."""
    try:
        dataset = load("mnist", data_dir=options.data_dir)
    except DatasetUnavailableError as error:
        print(f"time_to_accuracy is left out, since MNIST cannot be had (--data-dir names a folder with it): {error}")
        return
    rows: list[Sequence[str]] = []
    records = []
    libraries = {OURS: train}
    if options.torch and installed("torch"):
        libraries["PyTorch"] = train_in_torch
    lengths, count = ((0.5,), 3) if options.quick else (options.epochs, options.seeds)
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    for epochs, (library, run) in itertools.product(lengths, libraries.items()):
        outcomes = [run(dataset, epochs, seed) for seed in seeds]
        accuracies, _, seconds, compiling = zip(*outcomes, strict=True)
        reached = [sum(accuracy >= target for accuracy in accuracies) for target in options.targets]
        percent = spread([100 * accuracy for accuracy in accuracies], 2)
        name = f"{library}, {epochs:g} epoch{'' if epochs == 1 else 's'}"
        counts = (f"{number} of {count}" for number in reached)
        rows.append((name, percent, *counts, spread(seconds, 1), spread(compiling, 1)))
        records += [
            {"library": library, "epochs": epochs, "seed": seed, **outcome._asdict()}
            for seed, outcome in zip(seeds, outcomes, strict=True)
        ]
    facts = harness.environment()
    harness.show_facts(facts)
    reaching = [f"at {target:.1%} or more" for target in options.targets]
    columns = ("length", "test accuracy, %", *reaching, "training, s", "compiling, s")
    harness.show_table("MNIST, the default recipe", columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
