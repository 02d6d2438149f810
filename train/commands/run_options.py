"""The options of the commands that begin with the network of a run."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from train.config.sections import RunConfig


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Which run, and which of its checkpoints."""

    run: tyro.conf.Positional[Path]
    """Folder (or name) of the run."""
    checkpoint: Literal["newest", "best"] = "newest"
    """best: that of the highest validation accuracy."""
    runs_dir: Path = RunConfig.runs_dir
    """Folder that holds one folder a run."""


@dataclasses.dataclass(frozen=True)
class RunAndDataOptions(RunOptions):
    """The same, and where its data are."""

    data_dir: Path | None = None
    """Folder with the data's files; None: as in the run."""
