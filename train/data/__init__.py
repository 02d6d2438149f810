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
    """Loads a dataset by name.

    `"mnist"`, `"fashion_mnist"` and `"cifar10"` come from the files in `data_dir` where one is given, else from the
    cache, else through tensorflow-datasets, and if none of this works, it is an error. `"auto"` is MNIST, but where
    that cannot be had it is `"digits"`, and the note of the dataset says why. `"digits"` and `"iris"` never need a
    network.

    Args:
        name: one of `NAMES`.
        data_dir: a folder with the dataset's files; then nothing else is tried. Of MNIST and Fashion-MNIST the four
            IDX files; of CIFAR-10 see `cifar10.from_folder`.
        cache_dir: where what is downloaded is kept once prepared; by default `$XDG_CACHE_HOME/jaxbn` or
            `~/.cache/jaxbn`.

    Raises:
        UsageError: there is no such dataset, or `data_dir` is given for one that is not read from files.
        FileNotFoundError: `data_dir` lacks some of the files.
        IdxError: a file in `data_dir` is damaged, or not what its name says.
        CifarError: the same, of CIFAR-10.
        DatasetUnavailableError: it is not cached and cannot be downloaded (not under "auto").
        ChecksumError: what was downloaded is not what is published (also under "auto").

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
