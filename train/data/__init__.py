"""The datasets to train on, by name."""

import dataclasses
import importlib
from pathlib import Path

from train.data import bundled, preparation
from train.data.cifar10 import CifarError as CifarError
from train.data.dataset import Dataset as Dataset
from train.data.download import ChecksumError as ChecksumError
from train.data.download import DownloadError as DownloadError
from train.data.idx import IdxError as IdxError
from train.data.published import PUBLISHED
from train.data.published import DatasetUnavailableError as DatasetUnavailableError
from train.host.cache_folder import default_folder
from train.host.errors import UsageError

BUNDLED = {"digits": bundled.digits, "iris": bundled.iris}
NAMES = ("auto", *PUBLISHED, *BUNDLED)


def load(name: str, *, data_dir: str | Path | None = None, cache_dir: str | Path | None = None) -> Dataset:
    """Load a dataset by name.

    `"mnist"`, `"fashion_mnist"` and `"cifar10"` come from the files in `data_dir` if it is given, otherwise from the
    cache, otherwise through tensorflow-datasets; if all fail, an error is raised. `"auto"` is MNIST if available,
    otherwise `"digits"` with a note that gives the reason. `"digits"` and `"iris"` never need a network.

    Args:
        name: one of `NAMES`.
        data_dir: a folder with the dataset's files; then nothing else is tried. For MNIST and Fashion-MNIST the four
            IDX files; for CIFAR-10 see `cifar10.from_folder`.
        cache_dir: the folder for prepared downloads; by default `$XDG_CACHE_HOME/jaxbn` or `~/.cache/jaxbn`.

    Raises:
        UsageError: the dataset is unknown, or `data_dir` is given for one that is not read from files.
        FileNotFoundError: `data_dir` lacks some of the files.
        IdxError: a file in `data_dir` is damaged, or does not match its name.
        CifarError: the same for CIFAR-10.
        DatasetUnavailableError: it is not cached and cannot be downloaded (not under "auto").
        ChecksumError: the download is not the published file (also under "auto").

    Example:
        >>> flowers = load("iris")
        >>> flowers.train_inputs.shape, flowers.test_inputs.shape, flowers.class_names
        ((120, 4), (30, 4), ('setosa', 'versicolor', 'virginica'))
    """
    if name not in NAMES:
        raise UsageError(f"there is no dataset {name!r}; choose one of {', '.join(NAMES)}")
    if name in BUNDLED:
        if data_dir is not None:
            raise UsageError(f"{name} is bundled with scikit-learn and reads no files: leave out --data-dir {data_dir}")
        return BUNDLED[name]()
    published = PUBLISHED["mnist" if name == "auto" else name]
    if data_dir is not None:
        reader = importlib.import_module(f"train.data.{published.form}")
        return reader.from_folder(Path(data_dir).expanduser(), published)

    cache_folder = Path(cache_dir).expanduser() if cache_dir is not None else default_folder()
    try:
        return preparation.from_tensorflow_datasets(published, cache_folder)
    except DatasetUnavailableError as error:
        if name != "auto":
            raise
        note = (
            f"MNIST could not be prepared ({error.reason}); using scikit-learn's digits instead: "
            "for MNIST, pass --data-dir DIR with its four IDX files"
        )
        return dataclasses.replace(bundled.digits(), note=note)
