"""The feature axes and the reduced axes."""

import numpy as np
import oracle
import pytest

from jaxbn._axes import feature_axes, reduction_axes, size


@pytest.mark.parametrize(
    ("axis", "ndim", "features"),
    [(-1, 4, (3,)), (1, 4, (1,)), ((-1, 1), 4, (1, 3)), ([0], 1, (0,)), ((), 2, ()), (np.int64(2), 3, (2,)),
     (range(2), 3, (0, 1)), (np.asarray([2, 0]), 3, (0, 2))],
)  # fmt: skip
def test_features_and_the_others(axis, ndim, features):
    assert feature_axes(axis, ndim) == features
    assert reduction_axes(features, ndim) == oracle.reduced_axes(features, ndim)


def test_size():
    assert size((2, 3, 5), (0, 2)) == 10
    assert size((2, 3, 5), ()) == 1
    assert size((2, 0, 5), (1, 2)) == 0
