"""`python -m train report RUN`: the pictures and the page of a finished run."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from train.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Report:
    """Writes pictures and report.html, one page with everything about a run, to the run's folder."""

    run: tyro.conf.Positional[Path]
    """Folder (or name) of the run."""
    checkpoint: Literal["newest", "best"] = "newest"
    """best: that of the highest validation accuracy."""
    data_dir: Path | None = None
    """Folder with the dataset's files; None: as in the run."""
    runs_dir: Path = RunConfig.runs_dir
    """Folder that holds one folder a run."""


def report(options: Report) -> None:
    """Restores the network, and writes confusion.png, mistakes.png and report.html.

    Raises:
        UsageError: there is no such run, it has no sound checkpoint of this kind, or its data cannot be had.
        OSError: a file cannot be written.

    """
    from train import restored
    from train.report.page import write_report

    run = restored.restore(options.run, options.runs_dir, best=options.checkpoint == "best")
    print(write_report(run, restored.load_data(run, options.data_dir)))
