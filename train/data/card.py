"""A record of the data of a run: enough to build its network, and to recognize the data."""

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np


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


def digest(arrays: Iterable[np.ndarray]) -> str:
    """The SHA-256 of arrays: their types, shapes and bytes."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
