"""Builders of tensorflow-datasets that work without TensorFlow.

The stock builders use TensorFlow to unpack, read and encode. These builders replace those three steps; name, version,
features and records are those of the stock builders. Importing this module imports tensorflow-datasets, which is slow:
import it where it is used.
"""

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import Size

from train.data import cifar10, idx
from train.data.dataset import Arrays
from train.data.published import Published
from train.host import absl_log

Examples = Iterator[tuple[int, dict[str, Any]]]  # numbered
Splits = dict[str, Examples]
Paths = Mapping[str, Path]  # of the archives


def _idx_splits(_published: Published, _info: tfds.core.DatasetInfo, paths: Paths) -> Splits:
    return {
        "train": _of_idx(paths["train_inputs"], paths["train_labels"]),
        "test": _of_idx(paths["test_inputs"], paths["test_labels"]),
    }


def _cifar10_splits(published: Published, info: tfds.core.DatasetInfo, paths: Paths) -> Splits:
    # The stock builder reads the class names from the archive.
    cast("Any", info.features)["label"].names = list(published.class_names)
    *train, test = cifar10.read_archive(paths["all"])
    return {"train": _of_cifar("train_", train), "test": _of_cifar("test_", [test])}


SPLITS = {"idx": _idx_splits, "cifar10": _cifar10_splits}  # by the format of the files


def builder(published: Published, prepared_folder: Path) -> tfds.core.DatasetBuilder:
    """Return a builder of a dataset that reads archives from tensorflow-datasets' "manual" folder."""
    stock: Any = tfds.builder_cls(published.name)
    archives = published.archives

    class FromArchives(stock, skip_registration=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
        @property
        def url_infos(self) -> dict[str, UrlInfo]:
            """The sizes and checksums by which tensorflow-datasets verifies the archives."""
            return {
                archive.url: UrlInfo(size=Size(archive.size), checksum=archive.sha256, filename=archive.file_name)
                for archive in archives.values()
            }

        def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Splits:
            paths = dl_manager.download({field: archive.url for field, archive in archives.items()})
            return SPLITS[published.form](published, self.info, {field: Path(path) for field, path in paths.items()})

    FromArchives.name = published.name
    return FromArchives(data_dir=prepared_folder, file_format="array_record")


def prepare(published: Published, archive_folder: Path, prepared_folder: Path) -> Arrays:
    """Prepare a dataset and read it back.

    Args:
        published: the dataset.
        archive_folder: the folder of the archives.
        prepared_folder: the `data_dir` of tensorflow-datasets; must not contain the dataset yet.

    Returns:
        The arrays, with examples in the order of the archives.
    """
    config = tfds.download.DownloadConfig(
        manual_dir=archive_folder, try_download_gcs=False, force_checksums_validation=True
    )
    with _quiet():
        builder(published, prepared_folder).download_and_prepare(download_config=config)
        parts = [_read_split(published.name, prepared_folder, split) for split in ("train", "test")]
        return Arrays(*parts[0], *parts[1])


def _of_idx(images_path: Path, labels_path: Path) -> Examples:
    images, labels = idx.read_pair(images_path, labels_path)
    for key, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield key, {"image": _png(image[..., 0]), "label": int(label)}


def _of_cifar(prefix: str, parts: Iterable[cifar10.Part]) -> Examples:
    examples = (example for images, labels in parts for example in zip(images, labels, strict=True))
    for key, (image, label) in enumerate(examples):
        yield key, {"id": f"{prefix}{key:05d}", "image": _png(image), "label": int(label)}


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _read_split(name: str, prepared_folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read all examples of a split, in their original order instead of that of the hashes of their keys."""
    source = cast("Any", tfds.data_source(name, split=split, data_dir=prepared_folder, download=False))
    records = source.__getitems__(range(len(source)))  # in bulk: three times as fast as one by one
    keys = sorted(range(len(records)), key=hashing.Hasher(split).hash_key)
    inputs = np.empty((len(records), *records[0]["image"].shape), np.uint8)
    labels = np.empty(len(records), np.int32)
    inputs[keys] = [record["image"] for record in records]
    labels[keys] = [record["label"] for record in records]
    return inputs, labels


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A context in which tensorflow-datasets prints nothing and logs only errors."""
    tfds.disable_progress_bar()
    try:
        with absl_log.only(logging.ERROR), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
