"""The pictures of a run, all in the style of `train.report.style`."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from train.report import confusion, mistakes
from train.report.predictions import Predictions
from train.runs.results import CONFUSION, CURVES, MISTAKES


class Picture(NamedTuple):
    """A picture with its file, its heading and its caption."""

    file: str
    title: str
    caption: str
    draw: Callable[[Path, Predictions], None] | None = None  # None: drawn when training ends


PICTURES = (
    Picture(
        CURVES,
        "Curves",
        "Loss and accuracy of the training batches, and of the validation and test set after each epoch.",
    ),
    Picture(
        CONFUSION,
        "Confusion",
        "How often each class (row) is classified as each other (column): right in green, wrong in purple.",
        confusion.write,
    ),
    Picture(
        MISTAKES,
        "Mistakes",
        "The test examples whose true class gets the lowest probability.",
        mistakes.write,
    ),
)


def write_pictures(folder: Path, predictions: Predictions) -> None:
    """Write the pictures of a test set into the folder of a run.

    Raises:
        ValueError: inputs, labels and logits are not of one length, or there are none.
        OSError: a file cannot be written.

    """
    if not len(predictions.inputs) == len(predictions.labels) == len(predictions.logits) > 0:
        raise ValueError(
            "inputs, labels and logits must be of the same examples, one or more; "
            f"got {len(predictions.inputs)}, {len(predictions.labels)} and {len(predictions.logits)}"
        )
    for picture in PICTURES:
        if picture.draw is not None:
            picture.draw(folder / picture.file, predictions)
