"""Weights of all sizes count by their ratios; negative weights and NaN count as 0."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

import jaxbn

PARAMS, STATE = jaxbn.init(3)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Rows, and one weight per row."""
    rng = np.random.default_rng(0)
    return rng.normal(5, 2, (24, 3)).astype(np.float32), rng.choice([0, 0.5, 1, 2, 3], (24, 1)).astype(np.float32)


@jax.jit
def everything(x, weights):
    """The output, the new state, the gradient, and the effective size."""
    run = partial(jaxbn.batch_norm, PARAMS, STATE, train=True, momentum=0.0, mask=weights)
    gradient = jax.grad(lambda x: jnp.sum(jnp.where(weights > 0, run(x=x)[0], 0) ** 3))(x)
    y, state = run(x=x)
    return y, state, gradient, jaxbn.diagnostics(PARAMS, STATE, x, mask=weights).effective_size


@pytest.mark.parametrize("factor", [1e38, 1e-37])
def test_only_ratios_count(factor):
    """Sums and products of such weights are out of the range of float32."""
    x, weights = data()
    assert_close(everything(x, weights * np.float32(factor)), everything(x, weights), condition=5)


@pytest.mark.parametrize("factor", [1e38, 1e-37])
def test_also_between_shards(factor):
    """Shards with different totals, one of them 0; outputs and gradient."""
    x, weights = data()
    weights[:6] = 0
    shards = [a.reshape(4, 6, -1) for a in (x, weights * np.float32(factor))]

    def loss(x, w):
        y, state = jaxbn.batch_norm(PARAMS, STATE, x, True, momentum=0.0, mask=w, axis_name="shards")
        return jnp.sum(jnp.where(w > 0, y, 0) ** 3), state

    def total(x, w):
        losses, state = jax.vmap(loss, axis_name="shards", out_axes=(0, None))(x, w)
        return losses.sum(), state

    gradient, state = jax.jit(jax.grad(total, has_aux=True))(*shards)
    _, expected, expected_gradient, _ = everything(x, weights)
    assert_close((state, gradient.reshape(24, 3)), (expected, expected_gradient), condition=5)


def test_infinite_weights_leave_finite_ones_behind():
    """Infinite weights count as the largest number: their entries share all the weight equally."""
    x, weights = data()
    weights[[3, 7]] = np.inf
    _, state, *_ = everything(x, weights)
    assert_close((state.mean, state.var), (x[[3, 7]].mean(0, np.float64), x[[3, 7]].var(0, np.float64)), condition=2)


@pytest.mark.parametrize("value", [np.nan, -1.0, -np.inf])
def test_what_is_no_weight_counts_as_none(value):
    x, weights = data()
    changed = np.where(weights > 0, weights, np.float32(value))
    y, *rest = everything(x, changed)
    expected, *others = everything(x, weights)
    jax.tree.map(np.testing.assert_array_equal, (rest[0], rest[1]), (others[0], others[1]))
    np.testing.assert_array_equal(np.where(weights > 0, y, 0), np.where(weights > 0, expected, 0))


def test_unbiased_by_the_weight_itself():
    """Two rows of weight 0.5 count as one row, without unbiased variance. For huge weights, Bessel's factor is 1."""
    x, _ = data()
    state = STATE._replace(var=jnp.full(3, 7.0))
    run = partial(jaxbn.batch_norm, PARAMS, state, x[:2], True, momentum=0.0, unbiased=True)
    half, large = (run(mask=np.full((2, 1), w, np.float32))[1] for w in (0.5, 3e38))
    np.testing.assert_array_equal(half.var, 7.0)
    assert_close(large.var, x[:2].var(0, np.float64))
