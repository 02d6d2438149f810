"""The MNIST builder of tensorflow-datasets, made to work without TensorFlow.

The stock builder takes TensorFlow to unpack, read and encode. This one does those three itself, and is in all else the
stock one: name, version, features and records. Importing this module imports tensorflow-datasets, which is slow: import
it where it is used.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import Size
from tensorflow_datasets.image_classification import mnist

from train.data import idx
from train.data.dataset import Arrays
from train.data.download import Archive


class Mnist(mnist.MNIST, skip_registration=True):
    """MNIST without TensorFlow, from archives that lie in tensorflow-datasets' "manual" folder."""

    name = "mnist"

    def __init__(self, archives: Mapping[str, Archive], prepared_folder: Path) -> None:
        self._archives = archives
        super().__init__(data_dir=prepared_folder, file_format="array_record")

    @property
    def url_infos(self) -> dict[str, UrlInfo]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What tensorflow-datasets checks the archives against."""
        return {
            archive.url: UrlInfo(size=Size(archive.size), checksum=archive.sha256, filename=archive.file_name)
            for archive in self._archives.values()
        }

    def _split_generators(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict]]]:
        paths = dl_manager.download({field: archive.url for field, archive in self._archives.items()})
        return {
            "train": _records(Path(paths["train_inputs"]), Path(paths["train_labels"])),
            "test": _records(Path(paths["test_inputs"]), Path(paths["test_labels"])),
        }


def prepare(archives: Mapping[str, Archive], archive_folder: Path, prepared_folder: Path) -> Arrays:
    """Prepares MNIST and reads it back.

    Args:
        archives: what is published, by field of `Arrays`.
        archive_folder: where the archives lie.
        prepared_folder: the `data_dir` of tensorflow-datasets; must not hold MNIST yet.

    Returns:
        The arrays, examples in the order of the archives.
    """
    config = tfds.download.DownloadConfig(
        manual_dir=archive_folder, try_download_gcs=False, force_checksums_validation=True
    )
    with _quiet():
        Mnist(archives, prepared_folder).download_and_prepare(download_config=config)
        return Arrays(*_read_split(prepared_folder, "train"), *_read_split(prepared_folder, "test"))


def _records(images_path: Path, labels_path: Path) -> Iterator[tuple[int, dict]]:
    images, labels = idx.read_pair(images_path, labels_path)
    for key, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield key, {"image": _png(image[..., 0]), "label": int(label)}


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _read_split(prepared_folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All examples of a split; tensorflow-datasets stores them by the hash of their key, which is undone here."""
    source = cast("Any", tfds.data_source("mnist", split=split, data_dir=prepared_folder, download=False))
    records = source.__getitems__(range(len(source)))  # in bulk: three times as fast as one by one
    keys = sorted(range(len(records)), key=hashing.Hasher(split).hash_key)
    inputs = np.empty((len(records), 28, 28, 1), np.uint8)
    labels = np.empty(len(records), np.int32)
    inputs[keys] = [record["image"] for record in records]
    labels[keys] = [record["label"] for record in records]
    return inputs, labels


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps tensorflow-datasets from printing, and from logging anything less than errors."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logger.setLevel(level)
