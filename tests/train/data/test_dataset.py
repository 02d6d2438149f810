import dataclasses

import numpy as np
import pytest

from train.data import Dataset


def small(**changes: object) -> Dataset:
    fields = {
        "name": "toy",
        "source": "made up",
        "train_inputs": np.zeros((4, 2), np.float32),
        "train_labels": np.array([0, 1, 0, 1], np.int32),
        "test_inputs": np.zeros((2, 2), np.float32),
        "test_labels": np.array([0, 1], np.int32),
        "class_names": ("no", "yes"),
    }
    return Dataset(**(fields | changes))  # pyright: ignore[reportArgumentType]


def test_is_a_value():
    dataset = small()
    assert dataset.note == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    for array in (dataset.train_inputs, dataset.train_labels, dataset.test_inputs, dataset.test_labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.zeros(3, np.int32)}, "toy: the training set needs one label.*got 4 examples and 3 labels"),
        (
            {"test_inputs": np.zeros((0, 2), np.float32), "test_labels": np.zeros(0, np.int32)},
            "toy: the test set needs one label.*at least one example, got 0 examples",
        ),
        ({"train_labels": np.zeros(4, np.int64)}, r"toy: training labels must be \(N,\) int32, got \(4,\) int64"),
        ({"test_labels": np.zeros((2, 1), np.int32)}, r"toy: test labels must be \(N,\) int32, got \(2, 1\) int32"),
        ({"test_labels": np.array([0, 2], np.int32)}, r"toy: test labels must lie in 0\.\.1, got 0\.\.2"),
        ({"test_labels": np.array([-1, 1], np.int32)}, r"toy: test labels must lie in 0\.\.1, got -1\.\.1"),
        ({"test_inputs": np.zeros((2, 3), np.float32)}, r"one shape, got \(2,\) and \(3,\)"),
    ],
)
def test_refuses_what_does_not_fit(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        small(**changes)
