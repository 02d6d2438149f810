"""A test set, and what a network says of it."""

from typing import NamedTuple

import numpy as np


class Predictions(NamedTuple):
    """What the pictures of a run are drawn from."""

    dataset: str  # its name, for the titles
    class_names: tuple[str, ...]
    inputs: np.ndarray  # (N, H, W, C) uint8 images, or other inputs, which are not shown
    labels: np.ndarray  # (N,) the true classes
    logits: np.ndarray  # (N, classes)
