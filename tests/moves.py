"""Which images are moved by how much: shared by the tests of random shifts."""

import itertools

import numpy as np


def moves(images: np.ndarray, seen: np.ndarray, furthest: int) -> np.ndarray:
    """For each move down and across by at most `furthest` pixels, which of the images (N, H, W, C) were moved by it.

    Returns:
        bool, (moves, N).

    """
    _, height, width, _ = images.shape
    edge = (furthest, furthest)
    padded = np.pad(images, ((0, 0), edge, edge, (0, 0)))
    starts = itertools.product(range(2 * furthest + 1), repeat=2)
    moved = (padded[:, down:, across:][:, :height, :width] for down, across in starts)
    return np.array([(seen == each).all(axis=(1, 2, 3)) for each in moved])
