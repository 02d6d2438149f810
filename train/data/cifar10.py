"""CIFAR-10: small photographs. From a folder with its files, binary or Python's, unpacked or still in their archive.

    binary   records of 1 + 3072 bytes: the label, then 32x32 reds, greens and blues
    Python   a pickled dict with `labels` and `data`, (N, 3072) in the same order; read without unpickling

Both come as six files that hold equally many images: five for training, one for testing.
"""

import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from train.data import pickled
from train.data.dataset import Arrays, Dataset
from train.data.download import Archive
from train.data.published import Published

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 32 * 32 * 3
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")  # the last one is the test set
_FOLDERS = {"binary": "cifar-10-batches-bin", "Python": "cifar-10-batches-py"}
_ARCHIVES = {"binary": "cifar-10-binary.tar.gz", "Python": "cifar-10-python.tar.gz"}
_ENDINGS = {"binary": ".bin", "Python": ""}

# Size and digest are those that tensorflow-datasets registers.
PUBLISHED = Published(
    name="cifar10",
    title="CIFAR-10",
    class_names=CLASS_NAMES,
    archives={
        "all": Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        )
    },
    files="cifar-10-binary.tar.gz, or cifar-10-python.tar.gz, or the files of either",
)

Part = tuple[np.ndarray, np.ndarray]  # images (N, 32, 32, 3) uint8, labels (N,) int32


class CifarError(ValueError):
    """A file of CIFAR-10 is not what it should be."""


def from_folder(folder: Path) -> Dataset:
    """CIFAR-10 from a folder: the six files, or the folder or the archive that they are published in.

    Where there are both, the binary files are read.

    Args:
        folder: holds `data_batch_1.bin` … `test_batch.bin`, or `data_batch_1` … `test_batch`, or
            `cifar-10-batches-bin/`, `cifar-10-batches-py/`, `cifar-10-binary.tar.gz` or `cifar-10-python.tar.gz`.

    Raises:
        FileNotFoundError: none of these is there.
        CifarError: a file is damaged or cut short, or the six do not belong together.

    """
    for kind, read in _readers().items():
        names = [batch + _ENDINGS[kind] for batch in BATCHES]
        for place in (folder, folder / _FOLDERS[kind]):
            paths = [place / name for name in names]
            missing = [path.name for path in paths if not path.is_file()]
            if not missing:
                parts = [read(str(path), path.read_bytes()) for path in paths]
                return _dataset(f"{kind} files in {place}", place, parts)
            if len(missing) < len(names):
                raise FileNotFoundError(f"{place} lacks {', '.join(missing)}: CIFAR-10 takes six files")
        archive = folder / _ARCHIVES[kind]
        if archive.is_file():
            return _dataset(str(archive), archive, read_archive(archive, kind))
    raise FileNotFoundError(
        f"{folder} holds no CIFAR-10: give a folder with data_batch_1.bin … data_batch_5.bin and test_batch.bin, with "
        f"the files of the Python version, or with {' or '.join(_ARCHIVES.values())}"
    )


def read_archive(archive: Path, kind: str = "binary") -> list[Part]:
    """The images and labels of each file of an archive, "binary" or "Python", in the order of `BATCHES`.

    Raises:
        CifarError: the archive is damaged, or lacks one of them.

    """
    contents = unpack(archive, [batch + _ENDINGS[kind] for batch in BATCHES])
    return [_readers()[kind](f"{archive}: {name}", content) for name, content in contents.items()]


def _readers() -> Mapping[str, Callable[[str, bytes], Part]]:
    return {"binary": read_binary, "Python": read_python}


def read_binary(name: str, content: bytes) -> Part:
    """The images and labels of a binary file.

    Raises:
        CifarError: it is not whole, or holds a label above 9.

    """
    count, rest = divmod(len(content), 1 + PIXELS)
    if rest or not count:
        raise CifarError(
            f"{name}: binary files are records of {1 + PIXELS} bytes, and {len(content)} bytes are {count} of them and "
            f"{rest} more; fetch the file again"
        )
    records = np.frombuffer(content, np.uint8).reshape(count, 1 + PIXELS)
    return _part(name, records[:, 1:], records[:, 0])


def read_python(name: str, content: bytes) -> Part:
    """The images and labels of a file of the Python version, without unpickling it.

    Raises:
        CifarError: it is damaged, or no such file.

    """
    try:
        value = pickled.read(content)
    except pickled.PickleError as error:
        raise CifarError(f"{name}: {error}; fetch the file again") from error
    if not isinstance(value, dict):
        raise CifarError(f"{name}: files of the Python version hold a dict, found a {type(value).__name__}")
    fields: dict[str, Any] = {k.decode("latin-1") if isinstance(k, bytes) else str(k): v for k, v in value.items()}
    data, labels = fields.get("data"), fields.get("labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != PIXELS or len(data) == 0:
        raise CifarError(f"{name}: `data` must be an array (N, {PIXELS}) of unsigned bytes")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels) or len(labels) != len(data):
        raise CifarError(f"{name}: `labels` must be a list of {len(data)} integers, one an image")
    return _part(name, data, np.array(labels))


def unpack(archive: Path, names: list[str]) -> dict[str, bytes]:
    """The contents of files in an archive, by name; nothing is written to the disk.

    Raises:
        CifarError: the archive is damaged, or lacks one of them.

    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                name = PurePosixPath(member.name).name
                file = opened.extractfile(member) if member.isfile() and name in names else None
                if file is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CifarError(f"{archive}: the archive is damaged or cut short ({error}); fetch it again") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise CifarError(f"{archive} lacks {', '.join(missing)}: is it another archive, or cut short?")
    return {name: found[name] for name in names}


def _part(name: str, pixels: np.ndarray, labels: np.ndarray) -> Part:
    if labels.min() < 0 or labels.max() > 9:
        first = int(np.argmax((labels < 0) | (labels > 9)))
        raise CifarError(f"{name}: labels must lie in 0..9, but label number {first} is {labels[first]}")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # published with the colours in front
    return np.ascontiguousarray(images), labels.astype(np.int32)


def _dataset(source: str, place: Path, parts: list[Part]) -> Dataset:
    counts = [len(labels) for _, labels in parts]
    if len(set(counts)) > 1:  # a file cut short at the end of a record is told by this alone
        each = ", ".join(f"{batch}: {count}" for batch, count in zip(BATCHES, counts, strict=True))
        raise CifarError(f"{place}: the six files must hold equally many images; got {each}")
    train, (test_images, test_labels) = parts[:-1], parts[-1]
    arrays = Arrays(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        test_images,
        test_labels,
    )
    return Dataset("cifar10", source, *arrays, class_names=CLASS_NAMES)
