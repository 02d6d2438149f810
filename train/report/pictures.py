"""The pictures of a run: its curves, what it confuses, its worst mistakes. One style, in `train.report.style`."""

from pathlib import Path

import numpy as np

from train.report import confusion, mistakes
from train.runs.results import CONFUSION, MISTAKES


def write_pictures(
    folder: Path,
    dataset: str,
    class_names: tuple[str, ...],
    inputs: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
) -> None:
    """Writes confusion.png and mistakes.png.

    Args:
        folder: the run's.
        dataset: its name, for the titles.
        class_names: one a class.
        inputs: the test set: (N, H, W, C) uint8 images, or other inputs, which are not shown.
        labels: (N,) the true classes.
        logits: (N, classes).

    Raises:
        ValueError: they are not of one length, or there are none.
        OSError: a file cannot be written.

    """
    if not len(inputs) == len(labels) == len(logits) > 0:
        raise ValueError(
            "inputs, labels and logits must be of the same examples, one or more; "
            f"got {len(inputs)}, {len(labels)} and {len(logits)}"
        )
    confusion.write(folder / CONFUSION, dataset, class_names, labels, logits)
    mistakes.write(folder / MISTAKES, dataset, class_names, inputs, labels, logits)
