"""The presets, by their names on the command line: the options of each, and its results."""

from collections.abc import Mapping
from typing import Any, NamedTuple

KERAS = {  # the defaults of Keras, which the tutorials use
    "deslant": "off",
    "crop": 0,
    "shift": 0,
    "norm_hidden": False,
    "kernel_init": "glorot",
    "norm_momentum": 0.99,
    "norm_epsilon": 1e-3,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "adam_epsilon": 1e-7,
    "label_smoothing": 0.0,
    "epochs": 5,
    "batch_size": 32,
}
# What the fastest CIFAR-10 programs do (airbench): conv → pool → norm → activation, no scale, short averages.
AIRBENCH = {
    "padding": "same",
    "activation": ("gelu",),
    "norm_placement": "pooled",
    "norm_scale": False,
    "norm_epsilon": 1e-12,
    "norm_momentum": 0.6,
}
# For runs of some hundred steps, after which Keras's 0.99 lags so far behind that evaluation is off.
FAST = {"norm_momentum": 0.9}
MNIST_MLP = {"dataset": "mnist", "network": "mlp", "hidden": (300, 100), "norm_input": True, "kernel_init": "he"}


class Record(NamedTuple):
    """A preset with its results."""

    network: str
    data: str
    accuracies: tuple[float, ...]  # on the test set, in percent, by seed: from 100 where there are ten, else from 0
    seconds: int | None  # of training, on 2 CPU cores
    options: Mapping[str, Any]  # by name: those that differ from the default


RECORDS = {
    "default": Record(
        "CNN 16-32-256 of upright images, norm before relu; 0.5 epochs",
        "MNIST, else digits",
        (99.15, 99.25, 99.17, 99.12, 99.22, 99.05, 99.30, 99.19, 99.11, 99.21),
        1,
        {},
    ),
    "mnist-cnn-keras": Record(
        "CNN 32-64-256, as in Keras; 5 epochs",
        "MNIST, else digits",
        (98.85, 98.82, 98.86, 99.00),
        43,
        KERAS | {"channels": (32, 64)},
    ),
    "fashion-mnist-cnn": Record(
        "CNN 32-64-256, as in Keras; 5 epochs",
        "Fashion-MNIST",
        (),
        None,
        KERAS | {"dataset": "fashion_mnist", "network": "cnn"},
    ),
    "iris-mlp": Record(
        "MLP 512-512, norm before relu; 150 epochs",
        "iris",
        (100.0,) * 6,
        1,
        KERAS | FAST | {"dataset": "iris", "network": "mlp", "hidden": (512, 512), "epochs": 150, "batch_size": 30},
    ),
    "mnist-mlp-after": Record(
        "MLP 300-100, norm of the input, and after elu and relu; 5 epochs",
        "MNIST",
        (97.67, 97.83, 98.00),
        9,
        KERAS | MNIST_MLP | {"norm_placement": "after", "activation": ("elu", "relu")},
    ),
    "mnist-mlp-before": Record(
        "MLP 300-100, norm of the input, and before elu; 5 epochs",
        "MNIST",
        (97.27, 97.66, 97.34),
        9,
        KERAS | MNIST_MLP | {"norm_placement": "before", "activation": ("elu",)},
    ),
    "cifar10-cnn": Record(
        "CNN 8-8-16-16-256, norm after relu; 10 epochs",
        "CIFAR-10: a fifth of it",
        (48.90, 52.25, 51.10),
        60,
        KERAS
        | FAST
        | {
            "dataset": "cifar10",
            "network": "cnn",
            "channels": (8, 8, 16, 16),
            "pool_every": 2,
            "padding": "same",
            "norm_placement": "after",
            "norm_hidden": True,
            "epochs": 10,
            "batch_size": 256,
        },
    ),
    "mnist-cnn-bfloat16": Record(
        "the default, computed in bfloat16",
        "MNIST, else digits",
        (99.22, 99.2, 99.22, 99.21, 99.2, 99.15, 99.31, 99.18, 99.2, 99.14),
        4,
        {"precision": "bfloat16"},
    ),
    "cifar10-airbench": Record(
        "CNN 32-64-128-256, pooling, norm without scale, gelu; 8 epochs",
        "CIFAR-10: a fifth of it",
        (69.45, 69.75, 68.00),
        45,
        AIRBENCH | {"dataset": "cifar10", "network": "cnn", "channels": (32, 64, 128), "epochs": 8},
    ),
}
