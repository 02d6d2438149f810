"""What is written down of the data that a run learns from: enough to build its network, and to know the data again."""

import dataclasses
import hashlib

import numpy as np

from train.data import Dataset


@dataclasses.dataclass(frozen=True)
class DataCard:
    """A dataset without its examples."""

    name: str
    input_shape: tuple[int, ...]  # of one example
    input_dtype: str
    class_names: tuple[str, ...]
    digest: str  # SHA-256 of all arrays
    # As `Dataset.published`. The same arrays may come from files that can be compared, or from others.
    published: bool | None = dataclasses.field(default=None, compare=False, repr=False)


def describe(dataset: Dataset) -> DataCard:
    """The card of a dataset."""
    total = hashlib.sha256()
    for array in (dataset.train_inputs, dataset.train_labels, dataset.test_inputs, dataset.test_labels):
        total.update(f"{array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return DataCard(
        name=dataset.name,
        input_shape=dataset.train_inputs.shape[1:],
        input_dtype=str(dataset.train_inputs.dtype),
        class_names=tuple(dataset.class_names),
        digest=total.hexdigest(),
        published=dataset.published,
    )
