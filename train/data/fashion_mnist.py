"""Fashion-MNIST: pictures of clothes, in MNIST's files and form."""

from pathlib import Path

from train.data import idx
from train.data.dataset import Dataset

CLASS_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def from_folder(folder: Path) -> Dataset:
    """Fashion-MNIST from its four IDX files, which are named as MNIST's are; see `idx.read_folder` for the errors."""
    return Dataset("fashion_mnist", f"IDX files in {folder}", *idx.read_folder(folder), class_names=CLASS_NAMES)
