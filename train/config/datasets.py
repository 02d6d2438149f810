"""The datasets, by their names on the command line, with their default training recipes (data: `train.data`)."""

from typing import Literal, NamedTuple


class Recipe(NamedTuple):
    """The default options of a dataset."""

    epochs: float = 10
    batch_size: int = 64
    deslant: Literal["on", "off"] = "off"
    crop: int = 0  # pixels
    shift: int = 0  # pixels
    channels: tuple[int, ...] | None = (32, 64)  # of a cnn; None for tables


DATASETS = {
    "mnist": Recipe(epochs=0.5, deslant="on", crop=3, shift=1, channels=(16, 32)),
    "fashion_mnist": Recipe(epochs=5),
    "cifar10": Recipe(),
    "digits": Recipe(epochs=15),
    "iris": Recipe(epochs=150, batch_size=24, channels=None),
}
