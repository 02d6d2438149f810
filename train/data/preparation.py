"""Published datasets: downloaded and prepared once through tensorflow-datasets, then read from the cache."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from train.data import cache
from train.data.dataset import Arrays, Dataset
from train.data.download import DownloadError, fetch
from train.data.published import DatasetUnavailableError, Published

_log = logging.getLogger(__name__)


def from_tensorflow_datasets(published: Published, cache_folder: Path) -> Dataset:
    """Load a dataset through tensorflow-datasets; it is prepared once, and then read from the cache within a second.

    In addition to the arrays, the cache folder keeps the downloaded archives in `<name>/` (from which a damaged cache
    is rebuilt without a network), and the prepared dataset in `tensorflow_datasets/`, which a stock
    `tfds.data_source(<name>, data_dir=..., download=False)` can read. Interrupted steps are repeated. If several
    processes start at once, one prepares the dataset and the others wait.

    The examples are in the order of the archives.

    Args:
        published: the dataset.
        cache_folder: the cache folder, which is made if necessary.

    Raises:
        DatasetUnavailableError: not cached, and no network, no folder to write to or no tensorflow-datasets.
        ChecksumError: an archive was downloaded, but is not the published one.
    """
    path = cache_folder / f"{published.name}.arrays"
    arrays, _ = _cached(path)
    if arrays is not None:
        return _dataset(published, arrays)
    with _locked(published, cache_folder):
        arrays, damage = _cached(path)  # again: another process may have written it meanwhile
        if arrays is not None:
            return _dataset(published, arrays)
        try:
            arrays = _prepare(published, cache_folder)
        except DatasetUnavailableError as error:
            raise DatasetUnavailableError(published, "; ".join(filter(None, (damage, error.reason)))) from error
        cache.write(path, arrays)
    return _dataset(published, arrays, note=f"{damage}; it was rebuilt" if damage else "")


def _dataset(published: Published, arrays: Arrays, note: str = "") -> Dataset:
    names = published.class_names
    return Dataset(published.name, "tensorflow-datasets", *arrays, class_names=names, note=note, published=True)


def _cached(path: Path) -> tuple[Arrays | None, str]:
    """Return the cached arrays, if any, and the damage of the file, if any."""
    try:
        return cache.read(path), ""
    except cache.DamagedCacheError as error:
        return None, str(error)


@contextlib.contextmanager
def _locked(published: Published, folder: Path) -> Iterator[None]:
    """A context in which no other process prepares the same dataset in the folder, which is made if necessary."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{published.name}.lock").acquire()
    except OSError as error:
        reason = f"the cache folder {folder} cannot be written ({error.strerror}), set XDG_CACHE_HOME to one that can"
        raise DatasetUnavailableError(published, reason) from error
    with lock:
        yield


def _prepare(published: Published, cache_folder: Path) -> Arrays:
    archive_folder = cache_folder / published.name
    archive_folder.mkdir(exist_ok=True)
    size = sum(archive.size for archive in published.archives.values())
    _log.info("fetching %s, %.0f MB", published.title, size / 1e6)
    try:
        for archive in published.archives.values():
            fetch(archive, archive_folder)
    except DownloadError as error:
        raise DatasetUnavailableError(published, str(error)) from error

    _log.info("preparing %s with tensorflow-datasets, only once", published.title)
    prepared_folder = cache_folder / "tensorflow_datasets"
    # An earlier attempt may have left an incomplete dataset.
    shutil.rmtree(prepared_folder / published.name, ignore_errors=True)
    try:
        from train.data import builders

        return builders.prepare(published, archive_folder, prepared_folder)
    except ImportError as error:
        reason = f"tensorflow-datasets does not work here ({error}), install it with: pip install -e '.[train]'"
        raise DatasetUnavailableError(published, reason) from error
