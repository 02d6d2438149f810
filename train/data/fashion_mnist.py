"""Fashion-MNIST: pictures of clothes, in MNIST's files and form."""

from pathlib import Path

from train.data import idx
from train.data.dataset import Dataset
from train.data.download import Archive
from train.data.published import Published

_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# By the field of `Arrays` each one fills; sizes and digests are those that tensorflow-datasets registers.
PUBLISHED = Published(
    name="fashion_mnist",
    title="Fashion-MNIST",
    class_names=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    archives={
        "train_inputs": Archive(
            _URL + "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        "train_labels": Archive(
            _URL + "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        "test_inputs": Archive(
            _URL + "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        "test_labels": Archive(
            _URL + "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    },
    files=idx.FILES,
    md5={  # of the files as they are unpacked
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)


def from_folder(folder: Path) -> Dataset:
    """Fashion-MNIST from its four IDX files, which are named as MNIST's are; see `idx.read_folder` for the errors."""
    return idx.dataset(PUBLISHED, folder)
