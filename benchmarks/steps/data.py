"""The training data of every library's step."""

import numpy as np

IMAGES = 3072  # a twentieth of an epoch, as a call of the training program


def data() -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels: the time does not depend on what they show."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (IMAGES, 28, 28, 1), np.uint8), rng.integers(0, 10, IMAGES).astype(np.int32)


def starts(batch_size: int) -> range:
    """The first index of each batch; all batches are full."""
    return range(0, IMAGES - batch_size + 1, batch_size)
