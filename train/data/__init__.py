"""The datasets to train on, by name."""

import dataclasses
from pathlib import Path

from train.data import bundled, cache, cifar10, fashion_mnist, mnist
from train.data.cifar10 import CifarError as CifarError
from train.data.dataset import Dataset as Dataset
from train.data.download import ChecksumError as ChecksumError
from train.data.download import DownloadError as DownloadError
from train.data.idx import IdxError as IdxError
from train.data.mnist import MnistUnavailableError as MnistUnavailableError

NAMES = ("auto", "mnist", "digits", "iris", "fashion_mnist", "cifar10")


def load(name: str, *, data_dir: str | Path | None = None, cache_dir: str | Path | None = None) -> Dataset:
    """Loads a dataset by name.

    `"mnist"` comes from the IDX files in `data_dir` where one is given, else from the cache, else through
    tensorflow-datasets, and if none of this works, it is an error. `"auto"` is the same, but where MNIST cannot be had
    it is `"digits"`, and the note of the dataset says why. `"digits"` and `"iris"` never need a network.
    `"fashion_mnist"` and `"cifar10"` are read from `data_dir`, and never downloaded.

    Args:
        name: one of `NAMES`.
        data_dir: a folder with the dataset's files; then nothing else is tried. Of MNIST and Fashion-MNIST the four
            IDX files; of CIFAR-10 see `cifar10.from_folder`.
        cache_dir: where MNIST is kept once prepared; by default `$XDG_CACHE_HOME/jaxbn` or `~/.cache/jaxbn`.

    Raises:
        ValueError: there is no such dataset, or `data_dir` is given for one that is not read from files, or is missing
            for one that is read from nothing else.
        FileNotFoundError: `data_dir` lacks some of the files.
        IdxError: a file in `data_dir` is damaged, or not what its name says.
        CifarError: the same, of CIFAR-10.
        MnistUnavailableError: under "mnist", it is not cached and cannot be downloaded.
        ChecksumError: what was downloaded is not the published MNIST (also under "auto").

    Example:
        >>> flowers = load("iris")
        >>> flowers.train_inputs.shape, flowers.test_inputs.shape, flowers.class_names
        ((120, 4), (30, 4), ('setosa', 'versicolor', 'virginica'))
    """
    if name not in NAMES:
        raise ValueError(f"there is no dataset {name!r}; choose one of {', '.join(NAMES)}")
    if name in ("digits", "iris"):
        if data_dir is not None:
            raise ValueError(f"{name} is bundled with scikit-learn and reads no files: leave out --data-dir {data_dir}")
        return bundled.digits() if name == "digits" else bundled.iris()
    if name in ("fashion_mnist", "cifar10"):
        if data_dir is None:
            raise ValueError(f"{name} is read from files: pass --data-dir DIR, the folder that holds them")
        source = fashion_mnist if name == "fashion_mnist" else cifar10
        return source.from_folder(Path(data_dir).expanduser())
    if data_dir is not None:
        return mnist.from_folder(Path(data_dir).expanduser())

    cache_folder = Path(cache_dir).expanduser() if cache_dir is not None else cache.default_folder()
    try:
        return mnist.from_tensorflow_datasets(cache_folder, mnist.ARCHIVES)
    except mnist.MnistUnavailableError as error:
        if name == "mnist":
            raise
        note = (
            f"MNIST could not be prepared ({error.reason}); using scikit-learn's digits instead: "
            "for MNIST, pass --data-dir DIR with its four IDX files"
        )
        return dataclasses.replace(bundled.digits(), note=note)
