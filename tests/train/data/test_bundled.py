from hashlib import sha256
from typing import Any, cast

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from train.data import load
from train.data.bundled import enlarge


def rows(inputs, labels):
    """Examples as a sorted table, so that two sets of them can be compared."""
    table = np.column_stack([inputs.reshape(len(inputs), -1), labels])
    return table[np.lexsort(table.T)]


def everything(dataset):
    return rows(
        np.concatenate([dataset.train_inputs, dataset.test_inputs]),
        np.concatenate([dataset.train_labels, dataset.test_labels]),
    )


def test_digits_have_mnists_form():
    digits = load("digits")
    assert (digits.name, digits.source, digits.note) == ("digits", "bundled with scikit-learn", "")
    assert digits.train_inputs.shape == (1437, 28, 28, 1)
    assert digits.test_inputs.shape == (360, 28, 28, 1)
    assert digits.train_inputs.dtype == digits.test_inputs.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    assert digits.class_names == tuple("0123456789")
    margin = digits.train_inputs.copy()
    margin[:, 4:24, 4:24] = 0
    assert margin.max() == 0
    assert (digits.train_inputs.min(), digits.train_inputs.max()) == (0, 255)


def test_iris_is_a_table():
    iris = load("iris")
    assert (iris.name, iris.source, iris.note) == ("iris", "bundled with scikit-learn", "")
    assert (iris.train_inputs.shape, iris.test_inputs.shape) == ((120, 4), (30, 4))
    assert iris.train_inputs.dtype == iris.test_inputs.dtype == np.float32
    assert iris.train_labels.dtype == iris.test_labels.dtype == np.int32
    assert iris.class_names == tuple(cast("Any", load_iris()).target_names)


def test_every_example_is_used_once():
    images, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(
        everything(load("digits")), rows(enlarge(images.reshape(-1, 8, 8).astype(np.int64)), labels)
    )
    table, labels = load_iris(return_X_y=True)
    np.testing.assert_array_equal(everything(load("iris")), rows(table.astype(np.float32), labels))


@pytest.mark.parametrize("name", ["digits", "iris"])
def test_each_class_is_split_in_proportion(name):
    dataset = load(name)
    test = np.bincount(dataset.test_labels)
    whole = test + np.bincount(dataset.train_labels)
    assert np.all(np.abs(test - whole * (test.sum() / whole.sum())) < 1)
    # and shuffled: few neighbours are of one class, as is to be expected by chance, where an ordered set has nearly all
    assert np.mean(np.diff(dataset.train_labels) == 0) < 1.5 / len(dataset.class_names)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("digits", "91252a24339f53ceefcfaf6617dd57bbb6430e8abe462c13f610fbfa2e737a1c"),
        ("iris", "65b0203ff6cc6da7d849c1100e7704adba787243502b374009c97666f62d2e80"),
    ],
)
def test_the_split_is_the_same_everywhere(name, published):
    dataset = load(name)
    arrays = (dataset.train_inputs, dataset.train_labels, dataset.test_inputs, dataset.test_labels)
    digest = sha256()
    for array in arrays:
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == published


@pytest.mark.parametrize("value", range(17))
def test_a_plain_image_stays_plain(value):
    enlarged = enlarge(np.full((1, 8, 8), value))
    assert enlarged.dtype == np.uint8
    np.testing.assert_array_equal(enlarged[0, 4:24, 4:24, 0], np.full((20, 20), round(value * 255 / 16)))


def test_enlarging_is_bilinear():
    images = np.random.default_rng(0).integers(0, 17, (50, 8, 8))
    centres = (np.arange(20) + 0.5) * 8 / 20 - 0.5

    def stretch(row):  # beyond the outermost centres, np.interp carries the outermost value on
        return np.interp(centres, np.arange(8), row)

    exact = np.apply_along_axis(stretch, 1, np.apply_along_axis(stretch, 2, images)) * 255 / 16
    assert np.abs(enlarge(images)[:, 4:24, 4:24, 0] - exact).max() <= 0.5 + 1e-9
