"""The six files of CIFAR-10, in its two formats.

binary   records of 1 + 3072 bytes: the label, then 32x32 reds, greens and blues
Python   a pickled dict with `labels` and `data`, (N, 3072) in the same order; read without unpickling
"""

from typing import Any

import numpy as np

from train.data import forms, pickled
from train.host.errors import UsageError

PIXELS = 32 * 32 * 3
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")  # the last one is the test set
ENDINGS = {"binary": (".bin",), "Python": ("", ".pkl", ".pickle", ".p")}

Part = tuple[np.ndarray, np.ndarray]  # images (N, 32, 32, 3) uint8, labels (N,) int32


class CifarError(UsageError):
    """A file of CIFAR-10 is damaged or of another format."""


def read_binary(name: str, content: bytes) -> Part:
    """Read the images and labels of a binary file.

    Raises:
        CifarError: it is incomplete, or contains a label above 9.

    """
    count, rest = divmod(len(content), 1 + PIXELS)
    if rest or not count:
        _refuse_other_forms(name, content)
        raise CifarError(
            f"{name}: binary files are records of {1 + PIXELS} bytes, and {len(content)} bytes are {count} of them and "
            f"{rest} more; fetch the file again"
        )
    records = np.frombuffer(content, np.uint8).reshape(count, 1 + PIXELS)
    return _part(name, records[:, 1:], records[:, 0])


def read_python(name: str, content: bytes) -> Part:
    """Read the images and labels of a file of the Python version, without unpickling it.

    Raises:
        CifarError: it is damaged, or no such file.

    """
    try:
        value = pickled.read(content)
    except pickled.PickleFormError as error:
        raise CifarError(
            f"{name}: {error}: as published, files hold a dict with a NumPy array and a list; pickle such a one, or "
            "fetch the published file"
        ) from error
    except pickled.PickleError as error:
        _refuse_other_forms(name, content)
        raise CifarError(f"{name}: {error}; fetch the file again") from error
    if not isinstance(value, dict):
        raise CifarError(f"{name}: files of the Python version hold a dict, found a {type(value).__name__}")
    fields: dict[str, Any] = {k.decode("latin-1") if isinstance(k, bytes) else str(k): v for k, v in value.items()}
    if "fine_labels" in fields:
        raise CifarError(f"{name}: this is a file of CIFAR-100, not of CIFAR-10")
    data, labels = fields.get("data"), fields.get("labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != PIXELS or len(data) == 0:
        raise CifarError(f"{name}: `data` must be an array (N, {PIXELS}) of unsigned bytes; found {_described(data)}")
    if data.dtype != np.uint8:
        raise CifarError(f"{name}: `data` must be an array of unsigned bytes, 0 to 255; found {_described(data)}")
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(labels, list) or not all(type(label) is int for label in labels) or len(labels) != len(data):
        raise CifarError(f"{name}: `labels` must be a list of {len(data)} integers, one per image")
    return _part(name, data, np.array(labels))


def _described(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _refuse_other_forms(name: str, content: bytes) -> None:
    """Raise a CifarError if a file is intact, but of another format."""
    form = forms.recognised(content)
    if form:
        raise CifarError(f"{name}: this is {form}")


def _part(name: str, pixels: np.ndarray, labels: np.ndarray) -> Part:
    if labels.min() < 0 or labels.max() > 9:
        first = int(np.argmax((labels < 0) | (labels > 9)))
        raise CifarError(f"{name}: labels must lie in 0..9, but label number {first} is {labels[first]}")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # the colour axis comes first in the files
    return np.ascontiguousarray(images), labels.astype(np.int32)
