"""One row a norm, each figure that of its worst channel."""

import io

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxbn import Diagnostics
from train.report.norm_table import norm_table


def report(gap, ratio, dead, size):
    return Diagnostics(*map(jnp.asarray, (gap, ratio, np.ones_like(ratio), dead, size)))


def test_the_worst_of_each():
    table = norm_table(
        {
            "norm1": report([-3.25, 1.0], [0.5, 2.25], [True, False], [2048.0, 1500.0]),
            "block/norm": report([[0.125, 0.0], [0.0, 0.0]], [[1.0, 1.0]] * 2, [[True] * 2] * 2, [[9.0] * 2] * 2),
        }
    )
    assert [column.header for column in table.columns][1:] == [
        "channels", "largest gap of means", "variance / running", "dead", "effective size"]  # fmt: skip
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [
        ("norm1", "2", "3.25 σ", "0.50 to 2.25", "1", "1,500"),
        ("block/norm", "4", "0.12 σ", "1.00 to 1.00", "4", "9"),
    ]


def test_it_prints():
    stream = io.StringIO()
    Console(file=stream, width=100).print(norm_table({"norm1": report([0.5], [1.0], [False], [64.0])}))
    assert "norm1" in stream.getvalue()
    assert "0.50 σ" in stream.getvalue()
