"""The network of a run, restored from its folder alone, for evaluation, prediction and export."""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from train.config import config_file
from train.config.checks import check
from train.config.sections import Config
from train.data import Dataset, load
from train.data.card import DataCard
from train.host.errors import UsageError
from train.network.build import build
from train.network.models import CNN, MLP
from train.runs import checkpoint, results
from train.runs.identity import identify
from train.training.optimizer import optimizer
from train.training.step import TrainState, init_state

STEPS = 1000  # the length of schedules, which are not used here: any number gives the same arrays


class Restored(NamedTuple):
    """A run's network and state."""

    folder: Path
    config: Config
    model: CNN | MLP
    state: TrainState
    data: DataCard


def restore(run: Path, runs_dir: Path, best: bool = False) -> Restored:
    """Restore a run with its network from its newest intact checkpoint, or from that of the best epoch.

    Args:
        run: the folder of the run, or its name.
        runs_dir: the folder in which the name is looked up.
        best: restore the epoch of the highest validation accuracy.

    Raises:
        UsageError: the run does not exist, or has no intact checkpoint of this kind.

    """
    folder = config_file.find_run(run, runs_dir)
    config = config_file.read_run(folder)
    check(config)
    parent, own = folder / (results.BEST if best else results.CHECKPOINTS), identify(folder, config)
    found = checkpoint.newest(parent, functools.partial(_shapes, config), own)
    if found is not None:
        return Restored(folder, config, _model(config, found.data), found.state, found.data)
    if best:
        raise UsageError(
            f"{folder} has no best checkpoint: a run keeps one only with --validation, as in --validation 0.1"
        )
    raise UsageError(f"{folder} has no checkpoint yet")


def load_data(run: Restored, data_dir: Path | None) -> Dataset:
    """Load the data of a run, from `data_dir` if the files have moved.

    Raises:
        UsageError: the data are not available, or have changed.

    """
    dataset = load(run.data.name, data_dir=data_dir or run.config.data.data_dir)
    if dataset.card != run.data:
        raise UsageError(
            f"the data have changed since {run.folder} was started: pass the same --data-dir as at its start"
        )
    return dataset


def _model(config: Config, data: DataCard) -> CNN | MLP:
    return build(config, data.input_shape, len(data.class_names), jax.default_backend(), STEPS)


def _shapes(config: Config, data: DataCard) -> TrainState:
    inputs = jax.ShapeDtypeStruct((1, *data.input_shape), jnp.dtype(data.input_dtype))
    model, tx = _model(config, data), optimizer(config.optimizer, STEPS)
    return jax.eval_shape(lambda x: init_state(model, tx, x, config.run.seed), inputs)
