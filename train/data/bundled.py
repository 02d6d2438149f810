"""Two small datasets that come with scikit-learn and need no download: digits and iris."""

import numpy as np

from train.data.dataset import Dataset

_SOURCE = "bundled with scikit-learn"
_SPLIT_SEED = 0


def digits() -> Dataset:
    """Handwritten digits in MNIST's form: 1437 training and 360 test images of 28x28x1 uint8.

    scikit-learn has 1797 images of 8x8 with values 0..16. Each is enlarged to 20x20 by bilinear interpolation, scaled
    to 0..255, and placed in the middle of a black 28x28 image, as MNIST frames its digits. (If they are stretched to
    28x28, a nearest-neighbour classifier matches far fewer of them to the right MNIST digit.) The arithmetic uses
    integers, so the images are the same to the bit on every machine.

    Training and test set are a fixed stratified split of 80/20.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    enlarged = enlarge(images.reshape(-1, 8, 8).astype(np.int64))
    return _split("digits", enlarged, labels, test_size=360, class_names=tuple("0123456789"))


def iris() -> Dataset:
    """Fisher's iris table: 120 training and 30 test flowers, each with four lengths in cm as float32.

    The split is fixed; the test set has 10 flowers of each of the 3 species.
    """
    from sklearn.datasets import load_iris

    table, labels = load_iris(return_X_y=True)
    names = ("setosa", "versicolor", "virginica")
    return _split("iris", table.astype(np.float32), labels, test_size=30, class_names=names)


def enlarge(images: np.ndarray) -> np.ndarray:
    """Convert (N, 8, 8) integers in 0..16 to (N, 28, 28, 1) uint8: bilinear interpolation to 20x20, and a margin of 4.

    Pixel centres are at half-integers, and the outermost values extend beyond the edge.
    """
    weights = _tenths()
    hundredths = weights @ images @ weights.T  # 0..1600
    scaled = (hundredths * 255 + 800) // 1600  # rounded to the nearest
    return np.pad(scaled.astype(np.uint8), ((0, 0), (4, 4), (4, 4)))[..., None]


def _tenths() -> np.ndarray:
    """Interpolation weights in tenths, (20, 8): row i samples at 8/20 * (i + 1/2) - 1/2 = (4i - 3) / 10."""
    rows = np.arange(20)
    left, fraction = np.divmod(4 * rows - 3, 10)
    weights = np.zeros((20, 8), np.int64)
    np.add.at(weights, (rows, left.clip(0, 7)), 10 - fraction)
    np.add.at(weights, (rows, (left + 1).clip(0, 7)), fraction)
    return weights


def _split(name: str, inputs: np.ndarray, labels: np.ndarray, test_size: int, class_names: tuple[str, ...]) -> Dataset:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(len(labels)), test_size=test_size, stratify=labels, random_state=_SPLIT_SEED
    )
    labels = labels.astype(np.int32)
    return Dataset(name, _SOURCE, inputs[train], labels[train], inputs[test], labels[test], class_names)
