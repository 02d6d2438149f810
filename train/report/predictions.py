"""A test set with the predictions of a network."""

from typing import NamedTuple

import numpy as np


class Predictions(NamedTuple):
    """A test set with the logits of a network."""

    dataset: str  # its name, for the titles
    class_names: tuple[str, ...]
    inputs: np.ndarray  # (N, H, W, C) uint8 images, or other inputs, which are not shown
    labels: np.ndarray  # (N,) the true classes
    logits: np.ndarray  # (N, classes)
