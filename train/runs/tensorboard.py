"""TensorBoard files, written in addition to metrics.jsonl."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from train.training.loop import Epoch, Progress


@contextlib.contextmanager
def writer(folder: Path, after: int) -> Iterator[Callable[[Progress | Epoch], None]]:
    """A context with a function that writes an event to TensorBoard files.

    It needs tensorboardX, but not TensorFlow.

    Args:
        folder: the folder of the files.
        after: the step that a resumed run continues from; the records of later steps are withdrawn.

    """
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder), purge_step=after + 1 if after else None) as summary:

        def write(event: Progress | Epoch) -> None:
            for name, value in scalars(event).items():
                summary.add_scalar(name, value, event.step)

        yield write


def scalars(event: Progress | Epoch) -> dict[str, float]:
    """The scalars of an event by tag: losses in one group and accuracies in another, each by batches and sets."""
    if isinstance(event, Progress):
        return {
            "loss/batches": event.loss,
            "accuracy/batches": event.accuracy,
            "speed/examples per second": event.images_per_second,
        }
    values: dict[str, float] = {}
    for split in ("train", "validation", "test"):
        for measure in ("loss", "accuracy"):
            value = getattr(event, f"{split}_{measure}")
            if value is not None:
                values[f"{measure}/{split}"] = value
    return values
