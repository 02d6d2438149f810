"""The writer of a run's folder: the first process writes for all; the others have a silent writer."""

import contextlib
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from train.config import config_file
from train.config.sections import Config
from train.data.card import DataCard
from train.host import files
from train.host.errors import UsageError
from train.runs import checkpoint, identity, invocations, results
from train.runs.identity import Identity
from train.runs.results import FILES, FOLDERS, LOCK, METRICS, PARTS, PROGRESS, VARIABLES
from train.training.loop import Epoch, Progress, Snapshot
from train.training.step import TrainState


class Writer:
    """Writes the files of a run.

    Args:
        folder: the folder of the run.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self, *, overwrite: bool) -> None:
        """Check that the folder does not exist, is empty, or contains an earlier run that may be replaced.

        Raises:
            FileExistsError: it contains something else, or an earlier run without `overwrite`.

        """
        folder = self.folder
        if not folder.exists() and not folder.is_symlink():
            return
        if not folder.is_dir() or folder.is_symlink():
            raise FileExistsError(f"{folder} is not the folder of a run; pass another --name")
        found = {path.name for path in folder.iterdir()} - {LOCK, *PARTS}
        others = sorted(found.difference(FILES, FOLDERS))
        if others:
            raise FileExistsError(f"{folder} contains {others[0]}, which no run writes; pass another --name")
        if found and not overwrite:
            raise FileExistsError(
                f"{folder} contains an earlier run; pass another --name, or --overwrite to replace it"
            )

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """A context in which no other process can train in the folder, which is made if it is missing.

        Raises:
            UsageError: another process trains there.
            OSError: the folder cannot be made or written to.

        """
        with files.naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=self.folder.is_dir())
        lock = filelock.FileLock(self.folder / LOCK)
        with files.naming(self.folder):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                raise UsageError(f"{self.folder}: another process is training there: pass another --name") from None
        try:
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Remove the files of an earlier run, after `check` has allowed it."""
        with files.naming(self.folder, "cleared"):
            for name in {*FILES, *PARTS} - {LOCK}:
                (self.folder / name).unlink(missing_ok=True)
            for name in FOLDERS:
                if (self.folder / name).is_dir():
                    shutil.rmtree(self.folder / name)

    def rewind(self, step: int, epoch: int) -> tuple[list[Progress], list[Epoch]]:
        """Return the records up to a step of an epoch, and remove later ones."""
        return results.rewind(self.folder, step, epoch)

    def begin(self, config: Config, initial: TrainState | None, given: Sequence[str] = ()) -> None:
        """Writes the configuration, this invocation, and the digest of the initial state.

        Args:
            config: all options of the run.
            initial: the state that the run begins with; None for a resumed run.
            given: the names of the options that were set.

        """
        config_file.write_run(self.folder, config)
        invocations.append(self.folder, given)
        if initial is not None:
            identity.write_initial(self.folder, checkpoint.digest(initial))

    def save(self, kind: str, snapshot: Snapshot, data: DataCard, keep: int, run: Identity) -> None:
        """Write a checkpoint of a kind, after syncing the records, so that it is never ahead of them."""
        for name in (METRICS, PROGRESS):
            if (self.folder / name).exists():
                files.sync(self.folder / name)
        checkpoint.save(self.folder / kind, snapshot.state, snapshot.position, data, keep, run)

    def finish(self, state: TrainState) -> None:
        """Write variables.npz: parameters and batch statistics, by names such as `params/conv1/kernel`."""
        arrays: dict[str, Any] = {
            name: np.asarray(leaf) for name, leaf in flatten_dict(jax.device_get(state.variables), sep="/").items()
        }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        files.write(self.folder / VARIABLES, buffer.getvalue())


class Silent(Writer):
    """Writes nothing, since the first process writes."""

    def check(self, *, overwrite: bool) -> None:
        """Nothing to do."""

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Nothing to do."""
        yield

    def clear(self) -> None:
        """Nothing to do."""

    def rewind(self, step: int, epoch: int) -> tuple[list[Progress], list[Epoch]]:
        """Return the records up to a step of an epoch, and leave the files unchanged."""
        return results.rewind(self.folder, step, epoch, remove=False)

    def begin(self, config: Config, initial: TrainState | None, given: Sequence[str] = ()) -> None:
        """Nothing to do."""

    def save(self, kind: str, snapshot: Snapshot, data: DataCard, keep: int, run: Identity) -> None:
        """Nothing to do."""

    def finish(self, state: TrainState) -> None:
        """Nothing to do."""
