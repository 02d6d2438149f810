"""One row a norm, each figure that of its worst channel."""

import jax.numpy as jnp
import numpy as np

from jaxbn import Diagnostics
from train.report import norms


def report(gap, ratio, dead, size):
    return Diagnostics(*map(jnp.asarray, (gap, ratio, np.ones_like(ratio), dead, size)))


def test_the_worst_of_each():
    rows = norms.rows(
        {
            "norm1": report([-3.25, 1.0], [0.5, 2.25], [True, False], [2048.0, 1500.0]),
            "block/norm": report([[0.125, 0.0], [0.0, 0.0]], [[1.0, 1.0]] * 2, [[True] * 2] * 2, [[9.0] * 2] * 2),
        }
    )
    columns = ("norm", "channels", "largest gap of means", "variance / running", "dead", "effective size")
    assert [tuple(row) for row in rows] == [columns] * 2
    assert [tuple(row.values()) for row in rows] == [
        ("norm1", "2", "3.25 σ", "0.50 to 2.25", "1", "1,500"),
        ("block/norm", "4", "0.12 σ", "1.00 to 1.00", "4", "9"),
    ]
