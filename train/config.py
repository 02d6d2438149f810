"""What a run is told: frozen dataclasses, and named presets of them."""

import dataclasses
from pathlib import Path
from typing import Literal

DatasetName = Literal["auto", "mnist", "digits", "iris"]
Schedule = Literal["constant", "cosine", "one-cycle"]
Preset = Literal["default", "mnist-cnn-keras"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is learned from."""

    dataset: DatasetName = "auto"
    """auto: MNIST if it is on disk or can be downloaded, else scikit-learn's digits, said in one line."""
    data_dir: Path | None = None
    """Folder with the four MNIST files in IDX form (gzipped or not); nothing is downloaded then."""


@dataclasses.dataclass(frozen=True)
class NormConfig:
    """The batch normalization after each convolution or hidden layer."""

    norm_momentum: float = 0.9
    """Weight kept by the old running statistic at each step."""
    norm_epsilon: float = 1e-5
    """Added to the variance under the root."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam, and how long and how fast it goes."""

    epochs: int | None = None
    """Passes over the training set; None: what suits the dataset (mnist 2, digits 15, iris 150)."""
    batch_size: int | None = None
    """Examples a step; None: what suits the dataset (64, for iris 24). The remainder of an epoch, less than one batch,
    sits out; it is another one each epoch."""
    learning_rate: float = 4e-3
    """The highest learning rate of the schedule."""
    schedule: Schedule = "one-cycle"
    """one-cycle: up over the first fifth, then down to almost 0; cosine: down from the start."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where the results go, and the seed of everything random."""

    runs_dir: Path = Path("runs")
    """Folder that holds one folder a run."""
    name: str | None = None
    """Name of the run's folder; None: dataset and time."""
    overwrite: bool = False
    """Replace the results of an earlier run of the same name."""
    seed: int = 0
    """The same seed repeats a run bit for bit on the same machine."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains a network with batch normalization and writes what came of it to RUNS_DIR/NAME."""

    preset: Preset = "default"
    """What the other options begin with. default: 99% on MNIST soon; mnist-cnn-keras: a Keras recipe, 98.8%."""
    data: DataConfig = DataConfig()
    norm: NormConfig = NormConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()


PRESETS: dict[Preset, Config] = {
    "default": Config(),
    "mnist-cnn-keras": Config(
        preset="mnist-cnn-keras",
        norm=NormConfig(norm_momentum=0.99, norm_epsilon=1e-3),
        optimizer=OptimizerConfig(epochs=5, batch_size=32, learning_rate=1e-3, schedule="constant"),
    ),
}

DEFAULT_EPOCHS = {"mnist": 2, "digits": 15, "iris": 150}
DEFAULT_BATCH_SIZE = {"mnist": 64, "digits": 64, "iris": 24}
