"""A dataset: a training set and a test set as plain arrays."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from train.data.card import DataCard, digest


class Arrays(NamedTuple):
    """The four arrays of a dataset; the field names are those of `Dataset`."""

    train_inputs: np.ndarray  # (N, H, W, C) uint8 for images, (N, F) float32 for tables
    train_labels: np.ndarray  # (N,) int32
    test_inputs: np.ndarray  # as train_inputs
    test_labels: np.ndarray  # (M,) int32


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set in memory, with their source.

    The arrays are made read-only: a dataset is a value.

    Attributes:
        name: the name of the dataset, e.g. "mnist"; for `load("auto")` that of the one that was found.
        source: the source as a phrase, e.g. "bundled with scikit-learn".
        train_inputs: images as (N, H, W, C) uint8, tables as (N, F) float32.
        train_labels: (N,) int32, each the position of a class in `class_names`.
        test_inputs: as `train_inputs`.
        test_labels: as `train_labels`.
        class_names: one name per class.
        note: a line to show before training; usually empty.
        published: whether the digests are those of the data published under this name; None if none are known.

    Raises:
        ValueError: on construction, if inputs, labels and class names do not match.
    """

    name: str
    source: str
    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    note: str = ""
    published: bool | None = None

    def __post_init__(self) -> None:
        self._check("training", self.train_inputs, self.train_labels)
        self._check("test", self.test_inputs, self.test_labels)
        if self.train_inputs.shape[1:] != self.test_inputs.shape[1:]:
            raise ValueError(
                f"{self.name}: training and test inputs must have one shape, "
                f"got {self.train_inputs.shape[1:]} and {self.test_inputs.shape[1:]}"
            )
        for array in (self.train_inputs, self.train_labels, self.test_inputs, self.test_labels):
            array.flags.writeable = False

    @functools.cached_property
    def card(self) -> DataCard:
        """The record of this dataset."""
        arrays = (self.train_inputs, self.train_labels, self.test_inputs, self.test_labels)
        return DataCard(
            name=self.name,
            input_shape=self.train_inputs.shape[1:],
            input_dtype=str(self.train_inputs.dtype),
            class_names=tuple(self.class_names),
            digest=digest(arrays),
            published=self.published,
        )

    def _check(self, part: str, inputs: np.ndarray, labels: np.ndarray) -> None:
        if len(inputs) != len(labels) or len(labels) == 0:
            raise ValueError(
                f"{self.name}: the {part} set needs one label for each of at least one example, "
                f"got {len(inputs)} examples and {len(labels)} labels"
            )
        if labels.dtype != np.int32 or labels.ndim != 1:
            raise ValueError(f"{self.name}: {part} labels must be (N,) int32, got {labels.shape} {labels.dtype}")
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise ValueError(
                f"{self.name}: {part} labels must lie in 0..{len(self.class_names) - 1}, "
                f"got {labels.min()}..{labels.max()}"
            )
