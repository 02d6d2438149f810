"""MNIST: handwritten digits."""

from pathlib import Path

from train.data import idx
from train.data.dataset import Dataset
from train.data.download import Archive
from train.data.published import Published

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
# By the field of `Arrays` each one fills; sizes and digests are those that tensorflow-datasets registers.
PUBLISHED = Published(
    name="mnist",
    title="MNIST",
    class_names=tuple("0123456789"),
    archives={
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
    },
    files=idx.FILES,
    md5={  # of the files as they are unpacked
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)


def from_folder(folder: Path) -> Dataset:
    """MNIST from four IDX files; see `idx.read_folder` for their names and the errors."""
    return idx.dataset(PUBLISHED, folder)
