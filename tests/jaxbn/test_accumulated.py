"""Accumulated gradients: k small batches give the parameters and the statistics of one step with ghost batches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close

import jaxbn

ROWS, STEPS, FEATURES = 4, 3, 5


def batches(seed: int, number: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(2, 3, (number, STEPS * ROWS, FEATURES)).astype(np.float32)


def loss(params, state, x, momentum, ghost_batch_size=None):
    y, state = jaxbn.batch_norm(
        params["norm"], state, x @ params["kernel"], True, momentum=momentum, ghost_batch_size=ghost_batch_size
    )
    return jnp.mean(jnp.sin(y) ** 2), state


def trained(tx, inputs, momentum, ghost_batch_size=None):
    params, state = jaxbn.init(FEATURES)
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(FEATURES, FEATURES)), jnp.float32)
    params = {"kernel": kernel, "norm": params}

    def step(carry, x):
        params, state, opt_state = carry
        gradient = partial(jax.grad(loss, has_aux=True), momentum=momentum, ghost_batch_size=ghost_batch_size)
        gradients, state = gradient(params, state, x)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), None

    (params, state, _), _ = jax.lax.scan(step, (params, state, tx.init(params)), jnp.asarray(inputs))
    return params, state


@pytest.mark.parametrize("momentum", [0.9, 0.0, jaxbn.cumulative(), jaxbn.debiased(0.5)], ids=str)
def test_accumulated_batches_are_one_step_of_ghost_batches(momentum):
    whole = batches(0, number=2)
    accumulated = jaxbn.accumulated(momentum, STEPS)
    with jax.numpy_dtype_promotion("standard"):  # Optax divides by integers
        small = trained(optax.MultiSteps(optax.sgd(0.1), STEPS), whole.reshape(-1, ROWS, FEATURES), accumulated)
    large = trained(optax.sgd(0.1), whole, momentum, ghost_batch_size=ROWS)
    assert_close(small[0], large[0], condition=10)
    assert_close(small[1]._replace(count=0), large[1]._replace(count=0), condition=10)
    assert small[1].count == STEPS * large[1].count


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.99, 1.0])
def test_closed_form(momentum):
    """The closed form also holds within a step: the batches so far have their share, the old statistic the rest."""
    values = np.random.default_rng(2).normal(size=7)
    schedule, running = jaxbn.accumulated(momentum, 3), 5.0
    for count, value in enumerate(values):
        whole, j = divmod(count + 1, 3)
        keep = float(schedule(count))
        running = keep * running + (1 - keep) * value
        old = 5.0
        for step in range(whole):
            old = momentum * old + (1 - momentum) * values[3 * step : 3 * step + 3].mean()
        weights = np.array([momentum, *([(1 - momentum) / 3] * j)])
        if weights.sum() > 0:
            expected = np.average([old, *values[3 * whole : 3 * whole + j]], weights=weights)
            assert_close(np.float32(running), expected, condition=10)


def test_of_one_step_is_the_momentum():
    assert [float(jaxbn.accumulated(0.25, 1)(count)) for count in range(3)] == [0.25] * 3


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((1.5, 2), ValueError, r"momentum must be in \[0, 1\]"),
        (("a", 2), TypeError, "momentum must be a number"),
        ((0.9, 0), ValueError, "steps must be a positive integer"),
        ((0.9, 2.0), TypeError, "steps must be an integer"),
        ((0.9, True), ValueError, "steps must be a positive integer"),
    ],
)
def test_errors(arguments, error, words):
    with pytest.raises(error, match=words):
        jaxbn.accumulated(*arguments)
