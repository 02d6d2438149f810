"""The pictures of a run, a record each; one style, in `train.report.style`."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from train.report import confusion, mistakes
from train.report.predictions import Predictions
from train.runs.results import CONFUSION, CURVES, MISTAKES


class Picture(NamedTuple):
    """A picture, in its file and on the page."""

    file: str
    title: str
    caption: str
    draw: Callable[[Path, Predictions], None] | None = None  # None: it is drawn when training ends


PICTURES = (
    Picture(CURVES, "Curves", "Loss and accuracy over the epochs, of the training batches and of the test set."),
    Picture(
        CONFUSION,
        "Confusion",
        "What each class is taken for, and how often: right in green, wrong in purple.",
        confusion.write,
    ),
    Picture(
        MISTAKES,
        "Mistakes",
        "The test examples to whose class the network gives the least probability.",
        mistakes.write,
    ),
)


def write_pictures(folder: Path, predictions: Predictions) -> None:
    """Writes the pictures of a test set into the folder of a run.

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
