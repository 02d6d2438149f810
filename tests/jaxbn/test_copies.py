"""Copies made for the compiler equal their originals, in value and in derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbn._copies import copy_above, copy_below

FINITE = [0.0, -0.0, 1.0, -1.5, 1e-30, -1e-30, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min)]


@pytest.mark.parametrize("copy", [copy_below, copy_above])
def test_finite_values_are_unchanged(copy):
    for vector in (np.asarray(FINITE, np.float32), np.asarray(FINITE, np.complex64) * (1 + 0.5j)):
        np.testing.assert_array_equal(np.asarray(copy(jnp.asarray(vector))).view(np.uint8), vector.view(np.uint8))


@pytest.mark.parametrize("copy", [copy_below, copy_above])
def test_the_derivative_is_one(copy):
    _, tangent = jax.jvp(copy, (jnp.asarray(FINITE[:6]),), (jnp.arange(6.0),))
    np.testing.assert_array_equal(tangent, np.arange(6.0))


@pytest.mark.parametrize("copy", [copy_below, copy_above])
def test_nan_stays_nan(copy):
    assert np.isnan(copy(jnp.asarray(np.nan, jnp.float32)))
