"""The files in the folder of a run."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from train.config import config_file
from train.data import Dataset
from train.host import files, records
from train.runs import identity, invocations
from train.training.loop import Epoch, Progress

CONFIG, METRICS, PROGRESS, VARIABLES, CURVES = (
    config_file.NAME,
    "metrics.jsonl",
    "progress.jsonl",
    "variables.npz",
    "curves.png",
)
CONFUSION, MISTAKES, REPORT, EXPORT = "confusion.png", "mistakes.png", "report.html", "network.jaxbn"
CHECKPOINTS, BEST, TENSORBOARD, PROFILE, LOCK = "checkpoints", "best", "tensorboard", "profile", ".lock"
FOLDERS = (CHECKPOINTS, BEST, TENSORBOARD, PROFILE)
FILES = (
    *(CONFIG, config_file.DIGEST, identity.INITIAL, invocations.FILE, METRICS, PROGRESS, VARIABLES),
    *(CURVES, CONFUSION, MISTAKES, REPORT, EXPORT, LOCK),
)
PARTS = tuple(map(files.part_name, FILES))  # partly written files that a killed run may leave
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EpochRecord(Epoch):
    """A line of metrics.jsonl: an epoch, and the data."""

    dataset: str = ""
    source: str = ""
    note: str = ""


def record(folder: Path, dataset: Dataset, event: Progress | Epoch) -> None:
    """Append an event to metrics.jsonl or progress.jsonl."""
    line = dataclasses.asdict(event)
    if isinstance(event, Epoch):
        line |= {"dataset": dataset.name, "source": dataset.source, "note": dataset.note}
    records.append(folder / (METRICS if isinstance(event, Epoch) else PROGRESS), line)


def measured(folder: Path) -> list[records.Record]:
    """The intact records of the epochs."""
    return records.read(folder / METRICS, EpochRecord, whole=False)


def rewind(folder: Path, step: int, epoch: int, remove: bool = True) -> tuple[list[Progress], list[Epoch]]:
    """Return the records up to a step of an epoch, and remove the others, which will be written again.

    Damaged or missing records are reported in the log.
    """
    progress = _rewind(folder / PROGRESS, Progress, lambda record: record["step"] <= step, remove)
    epochs = _rewind(folder / METRICS, EpochRecord, lambda record: record["epoch"] < epoch, remove)
    if step > max((record["step"] for record in progress), default=0):
        _log.warning("%s does not reach step %d, from which the run continues", folder / PROGRESS, step)
    if missing := sorted(set(range(1, epoch)) - {record["epoch"] for record in epochs}):
        numbers = ", ".join(map(str, missing))
        _log.warning("%s has no intact record of epoch %s; the run continues without it", folder / METRICS, numbers)
    names = [field.name for field in dataclasses.fields(Epoch)]
    return (
        [Progress(**record) for record in progress],
        [Epoch(**{name: record[name] for name in names}) for record in epochs],
    )


def _rewind(path: Path, kind: type, stays: Callable[[records.Record], bool], remove: bool) -> list[records.Record]:
    found = [record for record in records.read(path, kind) if stays(record)]
    if remove and path.exists():
        records.write(path, found)
    return found
