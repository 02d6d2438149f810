"""The files that a run leaves in its folder."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from train.config import Config
from train.data import Dataset
from train.loop import Epoch, Progress
from train.step import TrainState
from train.summary import count

FILES = ("config.json", "metrics.jsonl", "variables.npz", "curves.png")
TRAINING_COLOUR, TEST_COLOUR = "#0072B2", "#D55E00"  # blue and vermilion, told apart by the colour-blind


def check_folder(runs: Path, name: str, overwrite: bool) -> Path:
    """The folder of a run, which does not exist yet, is empty, or holds an earlier run that may be replaced.

    Raises:
        ValueError: the name is no name of a folder.
        FileExistsError: there is something else, or an earlier run, and `overwrite` was not asked for.

    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"--name must be the name of a folder, without separators; got {name!r}")
    folder = runs / name
    if not folder.exists() and not folder.is_symlink():
        return folder
    if not folder.is_dir() or folder.is_symlink():
        raise FileExistsError(f"{folder} is no folder of a run; pass another --name")
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
    if others:
        raise FileExistsError(f"{folder} holds {others[0]}, which is of no run; pass another --name")
    if any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} holds an earlier run; pass another --name, or --overwrite to replace it")
    return folder


def make_folder(folder: Path) -> None:
    """Makes the folder that `check_folder` found; an earlier run in it goes."""
    folder.mkdir(parents=True, exist_ok=folder.is_dir())
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def write_config(folder: Path, config: Config) -> None:
    """config.json: every option as it was in effect."""
    text = json.dumps(dataclasses.asdict(config), indent=2, default=str)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def append_metrics(folder: Path, epoch: Epoch, dataset: Dataset) -> None:
    """One line of metrics.jsonl."""
    record = dataclasses.asdict(epoch) | {"dataset": dataset.name, "source": dataset.source, "note": dataset.note}
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def write_variables(folder: Path, state: TrainState) -> None:
    """variables.npz: parameters and batch statistics, one array a name such as `params/conv1/kernel`."""
    tree = {"params": state.params, "batch_stats": state.batch_stats}
    arrays: dict[str, Any] = {
        name: np.asarray(leaf) for name, leaf in flatten_dict(jax.device_get(tree), sep="/").items()
    }
    with (folder / "variables.npz").open("wb") as file:
        np.savez(file, **arrays)


def write_curves(folder: Path, progress: Sequence[Progress], epochs: Sequence[Epoch], dataset: Dataset) -> None:
    """curves.png: loss and accuracy over the epochs, of training batches and of the test set."""
    from matplotlib.figure import Figure  # without pyplot: no window system is looked for

    steps_per_epoch = epochs[0].step
    batches = [p.step / steps_per_epoch for p in progress]
    tested = [e.epoch for e in epochs]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(
        f"{dataset.name}: {epochs[-1].test_accuracy:.2%} of the test set right after {count(epochs[-1].epoch, 'epoch')}"
    )
    loss, accuracy = figure.subplots(1, 2)
    loss.plot(batches, [p.loss for p in progress], color=TRAINING_COLOUR, label="training batches")
    loss.plot(tested, [e.test_loss for e in epochs], "o-", color=TEST_COLOUR, label="test set")
    loss.set(xlabel="epoch", ylabel="loss: cross-entropy (nats), log scale", yscale="log")
    accuracy.plot(batches, [100 * p.accuracy for p in progress], color=TRAINING_COLOUR)
    accuracy.plot(tested, [100 * e.test_accuracy for e in epochs], "o-", color=TEST_COLOUR)
    lowest = min(e.test_accuracy for e in epochs)
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(max(0, 100 * lowest - 10), 100.5))
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    loss.legend(frameon=False)
    figure.savefig(folder / "curves.png", dpi=150)
