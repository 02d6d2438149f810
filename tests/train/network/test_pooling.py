"""Max pooling is Flax's; and its derivatives."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from train.network.pooling import max_pool


def pooled(pool, x):
    """The maxima, and the gradient of their sum weighted by 1, 2, 3, …."""

    @jax.jit
    def both(x):
        y, pull_back = jax.vjp(pool, x)
        return y, pull_back(1 + jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))[0]

    return both(x)


@pytest.mark.parametrize("shape", [(3, 8, 6, 5), (1, 7, 5, 2), (2, 2, 3, 1)], ids=str)
def test_max_pool_is_that_of_flax(shape):
    """Odd rows and columns are dropped, as VALID pooling does. All values differ, so the gradient is one of a kind."""
    x = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    y, gradient = pooled(max_pool, x)
    expected, expected_gradient = pooled(partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2)), x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)


def test_the_gradient_of_max_pool_at_ties_is_a_subgradient():
    """Weights of at least 0 that sum to 1, on the largest entries alone; ours are all on the first."""
    values = np.random.default_rng(0).integers(0, 3, (50, 4, 6, 3)).astype(np.float32)
    y, gradient = (np.asarray(each) for each in pooled(max_pool, values))
    largest = values == np.repeat(np.repeat(y, 2, axis=1), 2, axis=2)
    assert largest.sum() > y.size  # there are ties
    assert np.all(gradient >= 0)
    assert np.all(gradient[~largest] == 0)
    total = gradient.reshape(50, 2, 2, 3, 2, 3).sum(axis=(2, 4))
    np.testing.assert_array_equal(total, 1 + np.arange(y.size).reshape(y.shape))
    assert np.count_nonzero(gradient) == y.size


@pytest.mark.usefixtures("x64")
def test_max_pool_is_differentiated_in_every_mode():
    x = jnp.asarray(np.random.default_rng(0).permutation(4 * 5 * 6).reshape(2, 5, 6, 2), jnp.float64)
    check_grads(lambda x: max_pool(jnp.sin(x)), (x,), order=2, modes=("fwd", "rev"))


def test_a_value_that_is_none_is_not_lost_in_max_pool():
    x = np.zeros((1, 2, 4, 1), np.float32)
    x[0, 1, 2] = np.nan
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)).ravel(), [0, np.nan])
