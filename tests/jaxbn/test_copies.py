"""Copies made for the compiler equal their originals, in value and in derivative."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from jaxbn._copies import clamped_copy, widened

FINITE = [0.0, -0.0, 1.0, -1.5, 1e-30, -1e-30, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min)]


def test_finite_values_are_unchanged():
    for vector in (np.asarray(FINITE, np.float32), np.asarray(FINITE, np.complex64) * (1 + 0.5j)):
        np.testing.assert_array_equal(
            np.asarray(clamped_copy(jnp.asarray(vector))).view(np.uint8), vector.view(np.uint8)
        )


def test_the_derivative_is_one():
    _, tangent = jax.jvp(clamped_copy, (jnp.asarray(FINITE[:6]),), (jnp.arange(6.0),))
    np.testing.assert_array_equal(tangent, np.arange(6.0))


def test_nan_stays_nan():
    assert np.isnan(clamped_copy(jnp.asarray(np.nan, jnp.float32)))


@pytest.mark.parametrize("copy", [0, 1, 3])
def test_wider_numbers_are_the_same_numbers(copy):
    x = jnp.asarray(FINITE, jnp.bfloat16)
    np.testing.assert_array_equal(widened(x, jnp.float32, copy), x.astype(jnp.float32))
    assert widened(x, jnp.bfloat16, copy).dtype == jnp.bfloat16


@pytest.mark.parametrize("activation", [None, "relu"])
def test_x_in_half_precision_is_written_nowhere_in_single_precision(activation):
    """Each sum converts x for itself, and each kernel the cotangent."""
    shape = (64, 16, 16, 32)
    params, state = jaxbn.init(shape[-1])

    def both_passes(params, x, g):
        def forward(params, x):
            return jaxbn.batch_norm(params, state, x, True, activation=activation)

        y, backward, _ = jax.vjp(forward, params, x, has_aux=True)
        return y, backward(g)

    x = jnp.ones(shape, jnp.bfloat16)
    program = jax.jit(both_passes).lower(params, x, x).compile().as_text() or ""
    if "ynn" not in program:
        pytest.skip("this compiler has no fast reductions")
    entry = program[program.index("\nENTRY ") :].splitlines()
    sizes = [
        math.prod(map(int, found.split(","))) for line in entry for found in re.findall(r"= f32\[([\d,]+)\]", line)
    ]
    assert 0 < max(sizes) <= x.size / 4
