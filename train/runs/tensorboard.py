"""Files for TensorBoard, beside metrics.jsonl."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from train.training.loop import Epoch, Progress


@contextlib.contextmanager
def writer(folder: Path, after: int) -> Iterator[Callable[[Progress | Epoch], None]]:
    """A function that writes an event to files in a folder; records of steps behind `after` are withdrawn.

    Needs tensorboardX; nothing of TensorFlow.
    """
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder), purge_step=after + 1 if after else None) as summary:

        def write(event: Progress | Epoch) -> None:
            for name, value in scalars(event).items():
                summary.add_scalar(name, value, event.step)

        yield write


def scalars(event: Progress | Epoch) -> dict[str, float]:
    """What TensorBoard shows of an event: losses in one group, accuracies in another, batches and sets in each."""
    if isinstance(event, Progress):
        return {
            "loss/batches": event.loss,
            "accuracy/batches": event.accuracy,
            "speed/images per second": event.images_per_second,
        }
    values: dict[str, float] = {}
    for split in ("train", "validation", "test"):
        for measure in ("loss", "accuracy"):
            value = getattr(event, f"{split}_{measure}")
            if value is not None:
                values[f"{measure}/{split}"] = value
    return values
