"""The datasets, by their names on the command line, with their default training recipes (data: `train.data`)."""

from typing import NamedTuple


class Recipe(NamedTuple):
    """The default epochs and batch size of a dataset."""

    epochs: float
    batch_size: int = 64


DATASETS = {
    "mnist": Recipe(epochs=0.5),
    "fashion_mnist": Recipe(epochs=5),
    "cifar10": Recipe(epochs=10),
    "digits": Recipe(epochs=15),
    "iris": Recipe(epochs=150, batch_size=24),
}
