"""What the first process of a run writes into its folder, for all of them; the others hold its silent twin."""

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path

from train.config import config_file
from train.config.sections import Config
from train.data.card import DataCard
from train.runs import checkpoint, identity, results
from train.runs.identity import Identity
from train.training.loop import Epoch, Progress, Snapshot
from train.training.step import TrainState


class Writer:
    """Writes the files of a run.

    Args:
        folder: the run's.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self, *, overwrite: bool) -> None:
        """Finds the folder to be free for a new run, or raises as `results.check_folder` does."""
        results.check_folder(self.folder, overwrite)

    def claim(self) -> AbstractContextManager[None]:
        """A context in which no other run trains in the folder."""
        return results.claim(self.folder)

    def clear(self) -> None:
        """Removes what an earlier run left."""
        results.clear(self.folder)

    def rewind(self, step: int, epoch: int) -> tuple[list[Progress], list[Epoch]]:
        """The records up to a step of an epoch; the later ones are removed."""
        return results.rewind(self.folder, step, epoch)

    def begin(self, config: Config, initial: TrainState | None) -> None:
        """Writes the configuration, and the identity of the state that a run begins with; None: it goes on."""
        config_file.write_run(self.folder, config)
        if initial is not None:
            identity.write_initial(self.folder, checkpoint.digest(initial))

    def save(self, kind: str, snapshot: Snapshot, data: DataCard, keep: int, run: Identity) -> None:
        """Writes a checkpoint of a kind, which never knows of more than the records do."""
        results.sync_records(self.folder)
        checkpoint.save(self.folder / kind, snapshot.state, snapshot.position, data, keep, run)

    def finish(self, state: TrainState) -> None:
        """Writes the variables."""
        results.write_variables(self.folder, state)


class Silent(Writer):
    """Writes nothing: the first process does, and what it has written meanwhile is not looked at."""

    def check(self, *, overwrite: bool) -> None:
        """Nothing to do."""

    def claim(self) -> AbstractContextManager[None]:
        """A context of nothing."""
        return contextlib.nullcontext()

    def clear(self) -> None:
        """Nothing to do."""

    def rewind(self, step: int, epoch: int) -> tuple[list[Progress], list[Epoch]]:
        """The records up to a step of an epoch; the files stay as they are."""
        return results.rewind(self.folder, step, epoch, remove=False)

    def begin(self, config: Config, initial: TrainState | None) -> None:
        """Nothing to do."""

    def save(self, kind: str, snapshot: Snapshot, data: DataCard, keep: int, run: Identity) -> None:
        """Nothing to do."""

    def finish(self, state: TrainState) -> None:
        """Nothing to do."""
