"""When a run writes checkpoints: by the clock, by epochs, and for the best epoch; and when it stops early."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from train.config.sections import RunConfig
from train.data.card import DataCard
from train.runs import results
from train.runs.identity import Identity
from train.runs.writer import Writer
from train.training.loop import Epoch, Snapshot


@dataclasses.dataclass
class Keeper:
    """Writes the checkpoints of a run."""

    writer: Writer
    options: RunConfig
    data: DataCard  # the data of the run
    run: Identity
    saved: int | None = None  # the step of the last checkpoint; None if there is none
    clock: Callable[[], float] = time.monotonic  # seconds

    def __post_init__(self) -> None:
        self._time = self.clock()

    def keep(self, snapshot: Snapshot, epochs: Sequence[Epoch]) -> None:
        """Write the checkpoints that are due after an event; `epochs` are all epochs so far."""
        event = snapshot.event
        if isinstance(event, Epoch) and event is best(epochs):
            self.writer.save(results.BEST, snapshot, self.data, 1, self.run)
        minutes, every = self.options.checkpoint_minutes, self.options.checkpoint_epochs
        by_clock = minutes is not None and self.clock() - self._time >= 60 * minutes
        if by_clock or (isinstance(event, Epoch) and every is not None and event.epoch % every == 0):
            self.save(snapshot)

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, unless this step has one."""
        if snapshot.event.step != self.saved:
            self.writer.save(results.CHECKPOINTS, snapshot, self.data, self.options.keep_checkpoints, self.run)
            self.saved = snapshot.event.step
        self._time = self.clock()


def best(epochs: Sequence[Epoch]) -> Epoch | None:
    """Return the first epoch of the highest validation accuracy, or None without a validation set."""
    held = [epoch for epoch in epochs if epoch.validation_accuracy is not None]
    return max(held, key=lambda epoch: epoch.validation_accuracy or 0.0, default=None)


def out_of_patience(epochs: Sequence[Epoch], patience: int | None) -> bool:
    """True if `patience` epochs in a row did not improve on the best epoch before them."""
    first = best(epochs)
    return patience is not None and first is not None and epochs[-1].epoch - first.epoch >= patience
