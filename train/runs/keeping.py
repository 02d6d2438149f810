"""When a run keeps what it has: checkpoints by the clock and by epochs, the best one apart, and when to stop early."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from train.config.sections import RunConfig
from train.data.card import DataCard
from train.runs import checkpoint, results
from train.runs.identity import Identity
from train.training.loop import Epoch, Happening


class Keeper:
    """Writes the checkpoints of a run.

    Args:
        folder: the run's.
        options: the run's.
        data: gives what is written down of the data; called when it is needed.
        saved: the step that the run goes on from, whose checkpoint there is; None where it begins.
        clock: seconds.
        writes: False in all but one of the processes of a run: nothing is written there.
        run: which run it is.

    """

    def __init__(
        self,
        folder: Path,
        options: RunConfig,
        data: Callable[[], DataCard],
        saved: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        writes: bool = True,
        run: Identity | None = None,
    ) -> None:
        self._folder = folder
        self._options = options
        self._data = data
        self._saved = saved
        self._clock = clock
        self._time = clock()
        self._writes = writes
        self._run = run

    def keep(self, happening: Happening, epochs: Sequence[Epoch]) -> None:
        """Writes the checkpoints that are due after an event; `epochs` are all so far."""
        event = happening.event
        if isinstance(event, Epoch) and event is best(epochs):
            self._write(happening, results.BEST, keep=1)
        minutes, every = self._options.checkpoint_minutes, self._options.checkpoint_epochs
        by_clock = minutes is not None and self._clock() - self._time >= 60 * minutes
        if by_clock or (isinstance(event, Epoch) and every is not None and event.epoch % every == 0):
            self.save(happening)

    def save(self, happening: Happening) -> None:
        """Writes a checkpoint, unless this step has one."""
        if happening.event.step != self._saved:
            self._write(happening, results.CHECKPOINTS, self._options.keep_checkpoints)
            self._saved = happening.event.step
        self._time = self._clock()

    def _write(self, happening: Happening, kind: str, keep: int) -> None:
        if not self._writes:
            return
        results.sync_records(self._folder)  # a checkpoint never knows of more than the records do
        checkpoint.save(self._folder / kind, happening.state, happening.position, self._data(), keep, self._run)


def best(epochs: Sequence[Epoch]) -> Epoch | None:
    """The first epoch of the highest validation accuracy; None where nothing is held out."""
    held = [epoch for epoch in epochs if epoch.validation_accuracy is not None]
    return max(held, key=lambda epoch: epoch.validation_accuracy or 0.0, default=None)


def out_of_patience(epochs: Sequence[Epoch], patience: int | None) -> bool:
    """Whether so many epochs in a row did not improve on the best one before them."""
    first = best(epochs)
    return patience is not None and first is not None and epochs[-1].epoch - first.epoch >= patience
