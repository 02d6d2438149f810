"""MNIST: from IDX files in a folder, from the cache, or through tensorflow-datasets."""

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from train.data import cache, idx
from train.data.dataset import Arrays, Dataset
from train.data.download import Archive, DownloadError, fetch

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
# The published archives, by the field of `Arrays` each one fills: what tensorflow-datasets registers for MNIST.
ARCHIVES: Mapping[str, Archive] = {
    "train_inputs": Archive(
        _URL + "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train_labels": Archive(
        _URL + "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "test_inputs": Archive(
        _URL + "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "test_labels": Archive(
        _URL + "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
_CLASS_NAMES = tuple("0123456789")
_log = logging.getLogger(__name__)


class MnistUnavailableError(RuntimeError):
    """MNIST is not cached and cannot be prepared here and now.

    Attributes:
        reason: why not, as a phrase.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"MNIST could not be prepared: {reason}. Pass --data-dir DIR, a folder with its four IDX files "
            f"({', '.join(archive.file_name for archive in ARCHIVES.values())}), or --dataset digits, which needs no "
            "network"
        )
        self.reason = reason


def from_folder(folder: Path) -> Dataset:
    """MNIST from four IDX files; see `idx.read_folder` for their names and the errors."""
    return _dataset(f"IDX files in {folder}", idx.read_folder(folder))


def from_tensorflow_datasets(cache_folder: Path, archives: Mapping[str, Archive]) -> Dataset:
    """MNIST through tensorflow-datasets: prepared once, from then on read from the cache in a fraction of a second.

    The cache folder keeps, besides the arrays, the downloaded archives in `mnist/` (from which a damaged cache is
    rebuilt without a network) and in `tensorflow_datasets/` the prepared dataset, which a stock
    `tfds.data_source("mnist", data_dir=..., download=False)` reads. Whatever was interrupted is done again. Several
    processes may start at once: one prepares, the others wait for it.

    The examples come in the order of the IDX files.

    Args:
        cache_folder: where to keep all this; made if need be.
        archives: what to download, normally `ARCHIVES`.

    Raises:
        MnistUnavailableError: not cached, and no network, no folder to write to or no tensorflow-datasets.
        ChecksumError: an archive was downloaded, but is not the published one.
    """
    source = "tensorflow-datasets"
    path = cache_folder / "mnist.arrays"
    arrays, _ = _cached(path)
    if arrays is not None:
        return _dataset(source, arrays)
    with _locked(cache_folder):
        arrays, damage = _cached(path)  # again: another process may have written it meanwhile
        if arrays is not None:
            return _dataset(source, arrays)
        try:
            arrays = _prepare(cache_folder, archives)
        except MnistUnavailableError as error:
            raise MnistUnavailableError("; ".join(filter(None, (damage, error.reason)))) from error
        cache.write(path, arrays)
    return _dataset(source, arrays, note=f"{damage}; it was rebuilt" if damage else "")


def _dataset(source: str, arrays: Arrays, note: str = "") -> Dataset:
    return Dataset("mnist", source, *arrays, class_names=_CLASS_NAMES, note=note)


def _cached(path: Path) -> tuple[Arrays | None, str]:
    """The cached arrays, if there are any, and what is wrong with the file, if anything is."""
    try:
        return cache.read(path), ""
    except cache.DamagedCacheError as error:
        return None, str(error)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps other processes from preparing in it meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "mnist.lock").acquire()
    except OSError as error:
        raise MnistUnavailableError(
            f"the cache folder {folder} cannot be written ({error.strerror}), set XDG_CACHE_HOME to one that can"
        ) from error
    with lock:
        yield


def _prepare(cache_folder: Path, archives: Mapping[str, Archive]) -> Arrays:
    archive_folder = cache_folder / "mnist"
    archive_folder.mkdir(exist_ok=True)
    _log.info("fetching MNIST")
    try:
        for archive in archives.values():
            fetch(archive, archive_folder)
    except DownloadError as error:
        raise MnistUnavailableError(str(error)) from error

    _log.info("preparing MNIST with tensorflow-datasets, this once")
    prepared_folder = cache_folder / "tensorflow_datasets"
    shutil.rmtree(prepared_folder, ignore_errors=True)  # of an earlier attempt: whether it is whole is not known
    try:
        from train.data import mnist_builder

        return mnist_builder.prepare(archives, archive_folder, prepared_folder)
    except ImportError as error:
        raise MnistUnavailableError(
            f"tensorflow-datasets does not work here ({error}), install it with: pip install 'jaxbn[train]'"
        ) from error
