"""When a run keeps what it has: checkpoints by the clock and by epochs, the best one apart, and when to stop early."""

import time
from collections.abc import Callable, Sequence

from train.config.sections import RunConfig
from train.data.card import DataCard
from train.runs import results
from train.runs.identity import Identity
from train.runs.writer import Writer
from train.training.loop import Epoch, Snapshot


class Keeper:
    """Writes the checkpoints of a run.

    Args:
        writer: what writes them.
        options: the run's.
        data: what the run learns from.
        run: which run it is.
        saved: the step that the run goes on from, whose checkpoint there is; None where it begins.
        clock: seconds.

    """

    def __init__(
        self,
        writer: Writer,
        options: RunConfig,
        data: DataCard,
        run: Identity,
        saved: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._options = options
        self._data = data
        self._run = run
        self._saved = saved
        self._clock = clock
        self._time = clock()

    def keep(self, snapshot: Snapshot, epochs: Sequence[Epoch]) -> None:
        """Writes the checkpoints that are due after an event; `epochs` are all so far."""
        event = snapshot.event
        if isinstance(event, Epoch) and event is best(epochs):
            self._write(snapshot, results.BEST, keep=1)
        minutes, every = self._options.checkpoint_minutes, self._options.checkpoint_epochs
        by_clock = minutes is not None and self._clock() - self._time >= 60 * minutes
        if by_clock or (isinstance(event, Epoch) and every is not None and event.epoch % every == 0):
            self.save(snapshot)

    def save(self, snapshot: Snapshot) -> None:
        """Writes a checkpoint, unless this step has one."""
        if snapshot.event.step != self._saved:
            self._write(snapshot, results.CHECKPOINTS, self._options.keep_checkpoints)
            self._saved = snapshot.event.step
        self._time = self._clock()

    def _write(self, snapshot: Snapshot, kind: str, keep: int) -> None:
        self._writer.save(kind, snapshot, self._data, keep, self._run)


def best(epochs: Sequence[Epoch]) -> Epoch | None:
    """The first epoch of the highest validation accuracy; None where nothing is held out."""
    held = [epoch for epoch in epochs if epoch.validation_accuracy is not None]
    return max(held, key=lambda epoch: epoch.validation_accuracy or 0.0, default=None)


def out_of_patience(epochs: Sequence[Epoch], patience: int | None) -> bool:
    """Whether so many epochs in a row did not improve on the best one before them."""
    first = best(epochs)
    return patience is not None and first is not None and epochs[-1].epoch - first.epoch >= patience
