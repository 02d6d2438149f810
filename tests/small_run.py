"""Runs on disk without training: a checkpoint of a small network with random parameters and statistics."""

import functools
from pathlib import Path

import jax
import numpy as np

from train.config import config_file
from train.config.sections import Config, DataConfig, ModelConfig
from train.data.card import DataCard
from train.host import records
from train.network.build import build
from train.runs import checkpoint
from train.training.loop import Position
from train.training.optimizer import optimizer
from train.training.step import TrainState, init_state

CNN = ModelConfig(channels=(3, 5), hidden=(8,), norm_hidden=False)
MLP = ModelConfig(hidden=(8, 6))
DIGITS = DataCard("digits", (12, 12, 1), "uint8", tuple("abc"), "0" * 64)
IRIS = DataCard("iris", (4,), "float32", ("setosa", "versicolor", "virginica"), "0" * 64)
STEP, ACCURACY = 7, 0.875


def write(folder: Path, data: DataCard = DIGITS, model: ModelConfig = CNN, seed: int = 0) -> Path:
    """Write the folder of a run of one epoch that ended with ACCURACY."""
    config = Config(data=DataConfig(dataset=data.name), model=model)
    network = build(config, data.input_shape, len(data.class_names), "cpu", STEP)
    inputs = jax.ShapeDtypeStruct((1, *data.input_shape), data.input_dtype)
    initial = functools.partial(init_state, network, optimizer(config.optimizer, STEP), seed=0)
    state = draw(jax.eval_shape(initial, inputs), np.random.default_rng(seed))
    folder.mkdir(parents=True)
    config_file.write_run(folder, config)
    checkpoint.save(folder / "checkpoints", state, Position(epoch=2), data, keep=1)
    epoch = {"epoch": 1, "step": STEP, "train_loss": 0.5, "train_accuracy": 0.75, "test_loss": 0.25}
    record = epoch | {"test_accuracy": ACCURACY, "images_per_second": 1e3, "train_seconds": 0.25}
    records.append(folder / "metrics.jsonl", record)
    return folder


def draw(shapes: TrainState, random: np.random.Generator) -> TrainState:
    """A state of random arrays with these shapes, positive variances, and the step STEP."""
    drawn = jax.tree.map(lambda leaf: random.normal(0, 0.5, leaf.shape).astype(leaf.dtype), shapes)
    positive = jax.tree.map(np.exp, drawn.batch_stats)
    stats = {name: {"mean": drawn.batch_stats[name]["mean"], "var": positive[name]["var"]} for name in positive}
    return drawn._replace(step=np.int32(STEP), batch_stats=stats)


def images_of(data: DataCard, count: int) -> np.ndarray:
    """Random inputs with the shape and the type of this data."""
    random = np.random.default_rng(1)
    shape = (count, *data.input_shape)
    drawn = random.integers(0, 256, shape) if data.input_dtype == "uint8" else random.normal(size=shape)
    return drawn.astype(data.input_dtype)
