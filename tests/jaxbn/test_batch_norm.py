"""The function as documented: small examples by hand, and the independence of channels."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close

from jaxbn import BatchNormParams, BatchNormState, batch_norm, init


def test_the_promised_interface():
    """Names, order, kinds and defaults are promises; options may be added, as keywords only."""
    parameters = inspect.signature(batch_norm).parameters
    assert list(parameters)[:4] == ["params", "state", "x", "train"]
    promised = {"axis": -1, "momentum": 0.99, "epsilon": 1e-5, "unbiased": False, "dtype": None}
    options = {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert {name: options[name].default for name in promised} == promised
    assert len(options) + 4 == len(parameters)

    parameters = inspect.signature(init).parameters
    assert {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY} == {
        "use_scale": True, "use_bias": True, "dtype": jnp.float32}  # fmt: skip


def test_training_by_hand():
    """Entries 1 and 3: mean 2, variance 1; 10 and 30: mean 20, variance 100."""
    params = BatchNormParams(jnp.asarray([1.0, 2.0]), jnp.asarray([0.0, 5.0]))
    state = BatchNormState(jnp.asarray([4.0, 0.0]), jnp.asarray([3.0, 20.0]), jnp.asarray(8))
    y, new = batch_norm(params, state, jnp.asarray([[1.0, 10.0], [3.0, 30.0]]), True, momentum=0.75, epsilon=0.0)
    assert_close(y, np.asarray([[-1.0, 3.0], [1.0, 7.0]]))
    assert_close(new, (np.asarray([3.5, 5.0]), np.asarray([2.5, 40.0]), 9))


def test_unbiased_by_hand():
    """The running variance takes 2 and 200, twice the biased ones; the normalization does not change."""
    x = jnp.asarray([[1.0, 10.0], [3.0, 30.0]])
    y, new = batch_norm(*init(2), x, True, momentum=0.0, unbiased=True)
    assert_close(new.var, np.asarray([2.0, 200.0]))
    np.testing.assert_array_equal(y, batch_norm(*init(2), x, True)[0])


def test_evaluation_by_hand():
    params = BatchNormParams(jnp.asarray([2.0]), jnp.asarray([1.0]))
    state = BatchNormState(jnp.asarray([1.0]), jnp.asarray([3.0]), jnp.asarray(1))
    y, _ = batch_norm(params, state, jnp.asarray([[1.0], [5.0], [-3.0]]), False, epsilon=1.0)
    assert_close(y, np.asarray([[1.0], [5.0], [-3.0]]))


def test_evaluation_looks_at_each_example_alone():
    params, state = init(3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
    whole, _ = batch_norm(params, state, x, False)
    for i in range(8):
        np.testing.assert_array_equal(batch_norm(params, state, x[i : i + 1], False)[0], whole[i : i + 1])


def test_an_empty_batch_is_evaluated():
    assert batch_norm(*init(3), jnp.ones((0, 3)), False)[0].shape == (0, 3)


def test_one_dimension():
    """A vector has one channel on no axis: `axis=()` normalises all of it."""
    x = np.random.default_rng(0).normal(3, 2, 16).astype(np.float32)
    assert_close(batch_norm(*init(()), x, True, axis=()), oracle.batch_norm(*init(()), x, True, axis=()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_channel(value):
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    spoilt = x.copy()
    spoilt[5, 1] = value
    run = jax.jit(lambda x: batch_norm(*init(3), x, True))
    (y, state), (y_spoilt, state_spoilt) = run(x), run(spoilt)
    for vector, vector_spoilt in ((y, y_spoilt), (state.mean, state_spoilt.mean), (state.var, state_spoilt.var)):
        np.testing.assert_array_equal(vector[..., ::2], vector_spoilt[..., ::2])
    assert np.isnan(y_spoilt[:, 1]).any()
    assert not np.isfinite(state_spoilt.mean[1])
    assert not np.isfinite(state_spoilt.var[1])


@pytest.mark.parametrize("shift", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize("factor", [0.5, 4.0])
def test_invariant_under_shift_and_scale(shift, factor):
    """Without ε, and with numbers that stay exact: batch normalization of a·x + b is that of x, for a > 0."""
    x = np.random.default_rng(0).integers(-8, 8, (64, 3)).astype(np.float32)
    params, _ = init(3)
    y, _ = batch_norm(params, None, x, True, epsilon=0.0)
    moved, _ = batch_norm(params, None, factor * x + shift, True, epsilon=0.0)
    assert_close(moved, y)


def test_the_order_of_the_batch_does_not_matter():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, (64, 3)).astype(np.float32)
    order = rng.permutation(64)
    y, state = batch_norm(*init(3), x, True)
    y_permuted, state_permuted = batch_norm(*init(3), x[order], True)
    assert_close(y_permuted, np.asarray(y, np.float64)[order])
    assert_close(state_permuted, state)
