"""`python -m train report RUN`: the pictures and the page of a finished run."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from train.config import RunConfig

if TYPE_CHECKING:  # slow to import, and not needed for --help
    from train.data import Dataset
    from train.restored import Restored


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
    print(write_report(run, load_data(run, options.data_dir)))


def load_data(run: "Restored", data_dir: Path | None) -> "Dataset":
    """What the run learned from; `data_dir` is where it lies now, if not where it was then.

    Raises:
        UsageError: it cannot be had, or is not what it was.

    """
    from train.data import DatasetUnavailableError, load
    from train.data_card import describe
    from train.errors import UsageError

    try:
        dataset = load(run.data.name, data_dir=data_dir or run.config.data.data_dir)
    except (ValueError, DatasetUnavailableError) as error:
        raise UsageError(error) from error
    if describe(dataset) != run.data:
        raise UsageError(f"the data are not those that {run.folder} learned from: pass the same --data-dir as then")
    return dataset
