"""The published datasets: their downloads, and the digests that identify their files."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Literal

from train.data.download import Archive
from train.host.errors import UsageError

IDX_FILES = {  # of MNIST and of datasets in its format, by the field of `Arrays` that each fills
    "train_inputs": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_inputs": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


@dataclasses.dataclass(frozen=True)
class Published:
    """A dataset of tensorflow-datasets.

    Attributes:
        name: its name in tensorflow-datasets and on the command line.
        title: its usual name.
        form: the format of its files, which names the module that reads them.
        class_names: one name per class.
        archives: the files to download, by the keys that the builder uses.
        files: the files that a folder must contain to be read instead, as a phrase.
        md5: the digests of the files in the archives, by name, which identify them in any packing.
        first_labels: the first labels of the test set, to distinguish datasets whose files have the same names.
    """

    name: str
    title: str
    form: Literal["idx", "cifar10"]
    class_names: tuple[str, ...]
    archives: Mapping[str, Archive]
    files: str
    md5: Mapping[str, str]
    first_labels: tuple[int, ...] = ()


def _in_idx(
    name: str, title: str, class_names: tuple[str, ...], first_labels: tuple[int, ...], url: str, files: str
) -> Published:
    """Describe a dataset in four IDX files, one line each: size and SHA-256 as served, and MD5 after unpacking."""
    archives, md5 = {}, {}
    for (field, file), line in zip(IDX_FILES.items(), files.strip().splitlines(), strict=True):
        size, sha256, md5[file] = line.split()
        archives[field] = Archive(f"{url}{file}.gz", int(size), sha256)
    phrase = f"its four IDX files ({', '.join(f'{file}.gz' for file in IDX_FILES.values())})"
    return Published(name, title, "idx", class_names, archives, phrase, md5, first_labels)


# Sizes and SHA-256 are those that tensorflow-datasets registers.
_DATASETS = (
    _in_idx(
        name="mnist",
        title="MNIST",
        class_names=tuple("0123456789"),
        first_labels=(7, 2, 1, 0, 4, 1, 4, 9, 5, 9),
        url="https://storage.googleapis.com/cvdf-datasets/mnist/",
        files="""
         9912422  440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609  6bbc9ace898e44ae57da46a324031adb
           28881  3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c  a25bea736e30d166cdddb491f175f624
         1648877  8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6  2646ac647ad5339dbf082846283269ea
            4542  f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6  27ae3e4e09519cfbb04c329615203637
        """,
    ),
    _in_idx(
        name="fashion_mnist",
        title="Fashion-MNIST",
        class_names=(
            *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
        first_labels=(9, 2, 1, 1, 6, 1, 4, 6, 5, 7),
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files="""
        26421880  3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84  f4a8712d7a061bf5bd6d2ca38dc4d50a
           29515  a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845  9018921c3c673c538a1fc5bad174d6f9
         4422102  346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073  8181f5470baa50b63fa0f6fddb340f0a
            5148  67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5  15d484375f8d13e6eb1aabb0c3f46965
        """,
    ),
    Published(
        name="cifar10",
        title="CIFAR-10",
        form="cifar10",
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        archives={
            "all": Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            )
        },
        files="cifar-10-binary.tar.gz, or cifar-10-python.tar.gz, or the files of either",
        md5={  # of the files of the Python version; none of the binary files is known
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
)
PUBLISHED = {dataset.name: dataset for dataset in _DATASETS}


class DatasetUnavailableError(UsageError):
    """A dataset is neither cached nor can it be prepared.

    Attributes:
        reason: the reason as a phrase.
    """

    def __init__(self, published: Published, reason: str) -> None:
        super().__init__(
            f"{published.title} could not be prepared: {reason}. Pass --data-dir DIR, a folder with "
            f"{published.files}, or --dataset digits, which needs no network"
        )
        self.reason = reason


def compare(published: Published, contents: Mapping[str, bytes]) -> tuple[bool, str]:
    """Compare files with the published ones; return whether they are equal, and the note for the user."""
    differing = [
        name
        for name, content in contents.items()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != published.md5[name]
    ]
    if not differing:
        return True, ""
    which = "every file differs" if len(differing) == len(contents) else f"{', '.join(differing)} differ"
    which += "s" if len(differing) == 1 < len(contents) else ""
    return False, f"not the published {published.title}: {which} by MD5 (own data, or damaged?)"
