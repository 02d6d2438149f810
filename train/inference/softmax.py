"""Logits to probabilities."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits to probabilities, in float64.

    Example:
        >>> softmax(np.array([[0.0, 0.0], [1000.0, 0.0]])).tolist()
        [[0.5, 0.5], [1.0, 0.0]]

    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)
