"""A run as one value: its options, its data, its plan and its outputs."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from train.config.sections import Config
from train.data import Dataset
from train.host.console import Console
from train.runs.identity import Identity, identify
from train.runs.writer import Writer
from train.training.loop import Epoch, Position, Progress
from train.training.plan import Plan
from train.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, from its plan to its end."""

    config: Config
    dataset: Dataset
    plan: Plan
    writer: Writer
    console: Console
    given: tuple[str, ...] = ()  # the options set on the command line, by a preset or by a configuration file

    @property
    def folder(self) -> Path:
        """The folder of its results."""
        return self.writer.folder

    def identify(self) -> Identity:
        """The identity for its checkpoints; its initial state is read from its folder."""
        return identify(self.folder, self.config)


class Start(NamedTuple):
    """The state and the position from which a run starts or continues."""

    state: TrainState
    position: Position = Position()
    progress: tuple[Progress, ...] = ()
    epochs: tuple[Epoch, ...] = ()

    @property
    def saved(self) -> int | None:
        """The step whose checkpoint this is; None at the beginning."""
        return int(self.state.step) or None
