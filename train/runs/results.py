"""The files that a run leaves in its folder."""

import contextlib
import dataclasses
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from train.config import config_file
from train.data import Dataset
from train.host import files, records
from train.host.errors import UsageError
from train.runs import identity
from train.training.loop import Epoch, Progress
from train.training.step import TrainState

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
    *(CONFIG, config_file.DIGEST, identity.INITIAL, METRICS, PROGRESS, VARIABLES),
    *(CURVES, CONFUSION, MISTAKES, REPORT, EXPORT, LOCK),
)
PARTS = tuple(map(files.part_name, FILES))  # what a killed run may leave of them
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EpochRecord(Epoch):
    """A line of metrics.jsonl: an epoch, and what it was measured on."""

    dataset: str = ""
    source: str = ""
    note: str = ""


def check_folder(folder: Path, overwrite: bool) -> Path:
    """The folder of a run, which does not exist yet, is empty, or holds an earlier run that may be replaced.

    Raises:
        FileExistsError: there is something else, or an earlier run, and `overwrite` was not asked for.

    """
    if not folder.exists() and not folder.is_symlink():
        return folder
    if not folder.is_dir() or folder.is_symlink():
        raise FileExistsError(f"{folder} is no folder of a run; pass another --name")
    found = {path.name for path in folder.iterdir()} - {LOCK, *PARTS}
    others = sorted(found.difference(FILES, FOLDERS))
    if others:
        raise FileExistsError(f"{folder} holds {others[0]}, which is of no run; pass another --name")
    if found and not overwrite:
        raise FileExistsError(f"{folder} holds an earlier run; pass another --name, or --overwrite to replace it")
    return folder


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Makes the folder of a run where it is missing, and keeps other processes from training in it meanwhile.

    Raises:
        UsageError: another process does.
        OSError: the folder cannot be made or written to.

    """
    with files.naming(folder):
        folder.mkdir(parents=True, exist_ok=folder.is_dir())
    lock = filelock.FileLock(folder / LOCK)
    with files.naming(folder):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                f"{folder}: another process is training there at this moment: pass another --name"
            ) from None
    try:
        yield
    finally:
        lock.release()


def clear(folder: Path) -> None:
    """Removes what an earlier run left in a folder that `check_folder` approved."""
    with files.naming(folder, "cleared"):
        for name in {*FILES, *PARTS} - {LOCK}:
            (folder / name).unlink(missing_ok=True)
        for name in FOLDERS:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)


def record(folder: Path, dataset: Dataset, event: Progress | Epoch) -> None:
    """One line of metrics.jsonl or progress.jsonl, whichever is for such an event."""
    line = dataclasses.asdict(event)
    if isinstance(event, Epoch):
        line |= {"dataset": dataset.name, "source": dataset.source, "note": dataset.note}
    records.append(folder / (METRICS if isinstance(event, Epoch) else PROGRESS), line)


def measured(folder: Path) -> list[records.Record]:
    """The records of the epochs, as far as they are known."""
    return records.read(folder / METRICS, EpochRecord, whole=False)


def sync_records(folder: Path) -> None:
    """Waits until the lines so far are on the disk."""
    for name in (METRICS, PROGRESS):
        if (folder / name).exists():
            files.sync(folder / name)


def rewind(folder: Path, step: int, epoch: int, remove: bool = True) -> tuple[list[Progress], list[Epoch]]:
    """Returns the records up to a step of an epoch, and removes the others: what they tell of is done again.

    Records that are damaged or missing are reported in the log.
    """
    progress = _rewind(folder / PROGRESS, Progress, lambda record: record["step"] <= step, remove)
    epochs = _rewind(folder / METRICS, EpochRecord, lambda record: record["epoch"] < epoch, remove)
    if step > max((record["step"] for record in progress), default=0):
        _log.warning("%s does not reach step %d, from which the run goes on", folder / PROGRESS, step)
    if missing := sorted(set(range(1, epoch)) - {record["epoch"] for record in epochs}):
        numbers = ", ".join(map(str, missing))
        _log.warning("%s has no intact record of epoch %s; the run goes on without", folder / METRICS, numbers)
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


def write_variables(folder: Path, state: TrainState) -> None:
    """variables.npz: parameters and batch statistics, one array a name such as `params/conv1/kernel`."""
    arrays: dict[str, Any] = {
        name: np.asarray(leaf) for name, leaf in flatten_dict(jax.device_get(state.variables), sep="/").items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    files.write(folder / VARIABLES, buffer.getvalue())
