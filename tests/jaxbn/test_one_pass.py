"""On a CPU, both sums of the statistics take one pass over x."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from benchmarks.compiled.traffic import traffic
from jaxbn._one_pass import Cut, both_summed, cut

DEVICES = 8  # see conftest

CUTS = {
    "rows, which devices may divide": ((64, 26, 26, 32), (0, 1, 2), Cut(0, 8)),
    "columns": ((32, 26, 28, 32), (0, 1, 2), Cut(2, 7)),
    "lines, where columns are short": ((60, 28, 28, 1), (0, 1, 2), Cut(1, 7)),
    "channels first": ((6, 32, 30, 16), (0, 2, 3), Cut(2, 6)),
    "time": ((3, 1000, 24), (0, 1), Cut(1, 8)),
    "too few rows for each device": ((24, 2048), (0,), None),
    "no divisor": ((37, 1024), (0,), None),
    "entries of a channel side by side": ((64, 1024), (1,), None),
    "a small array": ((8, 8, 8, 16), (0, 1, 2), None),
}


@pytest.mark.parametrize(("shape", "axes", "expected"), CUTS.values(), ids=CUTS)
def test_x_is_cut_where_the_rows_are_long(shape, axes, expected):
    assert jax.device_count() == DEVICES
    assert cut(jnp.zeros(shape), axes, jnp.dtype("float32")) == expected


def test_x_that_would_be_converted_twice_is_not_cut():
    assert cut(jnp.zeros((64, 26, 26, 32), jnp.bfloat16), (0, 1, 2), jnp.dtype("float32")) is None
    assert cut(jnp.zeros((64, 26, 26, 32), jnp.complex64), (0, 1, 2), jnp.dtype("complex64")) is None


@pytest.mark.parametrize(("shape", "axes", "by"), [case for case in CUTS.values() if case[2]])
@pytest.mark.parametrize("pieces", [None, 1, 2])
def test_each_entry_counts_once_in_each_sum(shape, axes, by, pieces):
    """Whole numbers, whose sums are exact in any order."""
    x = np.random.default_rng(0).integers(-8, 8, shape).astype(np.float32)
    weights = np.random.default_rng(1).integers(0, 3, (shape[0], *(1,) * (len(shape) - 1))).astype(np.float32)
    by = by if pieces is None else by._replace(pieces=pieces)
    first, second = jax.jit(lambda *arrays: both_summed(lambda x, w: (w * x, w * x * x), arrays, axes, by))(x, weights)
    np.testing.assert_array_equal(first, (weights * x).sum(axes))
    np.testing.assert_array_equal(second, (weights * x * x).sum(axes))


@pytest.mark.parametrize(("shape", "axis"), [((64, 26, 26, 32), -1), ((8, 32, 28, 28), 1), ((1024, 128), -1)])
@pytest.mark.parametrize("masked", [False, True])
def test_little_is_moved_besides_reading_x_once(shape, axis, masked):
    """The partial sums, of 2/8 or 2/7 of the size of x, are written and read."""
    mask = jnp.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1)) < shape[0] - 2 if masked else None
    x = jnp.zeros(shape)
    program = jax.jit(lambda x: jaxbn.moments(x, axis=axis, mask=mask)).lower(x).compile()
    assert 1 < traffic(program.as_text() or "").bytes / x.nbytes < 1.6
