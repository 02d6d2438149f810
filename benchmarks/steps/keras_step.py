"""Keras, with whichever backend the process has: `fit`, which compiles the step on JAX and not on PyTorch."""

from collections.abc import Callable

import numpy as np

from benchmarks.keras_torch import keras_on_torch
from benchmarks.steps.data import data


def keras_on_jax(batch_size: int) -> Callable[[], float]:
    """In this process."""
    return fit(batch_size, *data())


def keras_elsewhere(batch_size: int) -> Callable[[], None]:
    """On PyTorch, in its own process."""
    return keras_on_torch().prepare(f"{__name__}:fit", batch_size, *data())


def fit(batch_size: int, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """Train one epoch of the images, and return the computed loss."""
    import keras
    from keras import layers

    def block(features: int) -> tuple:
        convolution = layers.Conv2D(features, 3, use_bias=False)
        return convolution, layers.BatchNormalization(momentum=0.9), layers.ReLU(), layers.MaxPooling2D()

    dense = layers.Dense(256), layers.Dense(10)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Rescaling(1 / 255), *block(32), *block(64), layers.Flatten(), *dense]
    )
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def run() -> float:
        history = model.fit(images, labels, batch_size=batch_size, verbose=0)  # pyright: ignore[reportArgumentType]
        return history.history["loss"][-1]

    return run
