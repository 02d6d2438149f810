"""The datasets, each with what suits it: a name here is a name on the command line. Their data: `train.data`."""

from typing import NamedTuple


class Recipe(NamedTuple):
    """How a dataset is trained on where nothing else is said."""

    epochs: float
    batch_size: int = 64


DATASETS = {
    "mnist": Recipe(epochs=1),
    "fashion_mnist": Recipe(epochs=5),
    "cifar10": Recipe(epochs=10),
    "digits": Recipe(epochs=15),
    "iris": Recipe(epochs=150, batch_size=24),
}
