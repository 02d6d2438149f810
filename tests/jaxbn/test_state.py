"""Parameters and running statistics: their initial values, their pytrees, and their values after training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close

from jaxbn import BatchNormParams, BatchNormState, batch_norm, init


def test_init():
    params, state = init(3)
    assert isinstance(params, BatchNormParams)
    assert isinstance(state, BatchNormState)
    np.testing.assert_array_equal(params.scale, np.ones(3, np.float32), strict=True)
    np.testing.assert_array_equal(params.bias, np.zeros(3, np.float32), strict=True)
    np.testing.assert_array_equal(state.mean, np.zeros(3, np.float32), strict=True)
    np.testing.assert_array_equal(state.var, np.ones(3, np.float32), strict=True)
    np.testing.assert_array_equal(state.count, np.asarray(0, np.int32), strict=True)


@pytest.mark.parametrize(
    ("features", "shape"), [((2, 5), (2, 5)), ([2, 5], (2, 5)), ((), ()), (np.int64(4), (4,))], ids=repr
)
def test_init_of_several_feature_axes(features, shape):
    params, state = init(features)
    assert [jnp.shape(leaf) for leaf in jax.tree.leaves((params, state))] == [shape] * 4 + [()]


def test_init_without_scale_or_bias():
    assert init(3, use_scale=False)[0].scale is None
    assert init(3, use_bias=False)[0].bias is None
    assert init(3, use_scale=False, use_bias=False)[0] == (None, None)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("given", "mean", "var"),
    [
        ("bfloat16", "float32", "float32"),
        ("float16", "float32", "float32"),
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("complex64", "complex64", "float32"),
        ("complex128", "complex128", "float64"),
    ],
)
def test_types_of_init(given, mean, var):
    params, state = init(2, dtype=given)
    assert [leaf.dtype.name for leaf in jax.tree.leaves((params, state))] == [given, given, mean, var, "int32"]


def test_init_is_strongly_typed():
    """Weakly typed initial values would change the type of a scan's carry after one step."""
    assert not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(init(2)))


def test_pytrees_round_trip():
    for tree in (*init(3), BatchNormParams(None, jnp.ones(2))):
        leaves, structure = jax.tree.flatten(tree)
        assert len(leaves) == sum(field is not None for field in tree)
        assert jax.tree.unflatten(structure, leaves) == tree
        doubled = jax.tree.map(lambda leaf: 2 * leaf, tree)
        assert type(doubled) is type(tree)
        for leaf, twice in zip(leaves, jax.tree.leaves(doubled), strict=True):
            np.testing.assert_array_equal(twice, 2 * leaf)
    paths, _ = jax.tree.flatten_with_path(init(3))
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [
        "[0].scale", "[0].bias", "[1].mean", "[1].var", "[1].count"]  # fmt: skip


def test_evaluation_before_any_update():
    """Mean 0 and variance 1: x/√(1 + ε) · scale + bias."""
    x = np.random.default_rng(0).normal(3, 2, (8, 3)).astype(np.float32)
    params = BatchNormParams(jnp.asarray([1.0, -2.0, 0.5]), jnp.asarray([0.0, 1.0, -3.0]))
    y, _ = batch_norm(params, init(3)[1], x, False, epsilon=0.5)
    assert_close(y, oracle.wide(x) / np.sqrt(1.5) * np.asarray(params.scale) + np.asarray(params.bias), condition=2)


def test_evaluation_returns_the_very_same_state():
    params, state = init(3)
    x = jnp.ones((4, 3))
    assert batch_norm(params, state, x, False)[1] is state
    assert batch_norm(params, None, x, False)[1] is None
    assert batch_norm(params, None, x, True)[1] is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [0, 0.3, 0.99, 1])
@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_closed_form_after_some_steps(momentum, unbiased, steps):
    """mⁿ · initial + (1 − m) Σ mⁿ⁻¹⁻ⁱ · batchᵢ, for batches with different means and variances."""
    batches = np.random.default_rng(0).normal(3, 2, (steps, 6, 5, 4))
    params, state = init(4, dtype=jnp.float64)
    for x in batches:
        _, state = batch_norm(params, state, x, True, momentum=momentum, unbiased=unbiased)
    share = [(1 - momentum) * momentum ** (steps - 1 - i) for i in range(steps)]
    mean = share @ batches.mean((1, 2))
    var = momentum**steps + share @ batches.var((1, 2), ddof=int(unbiased))
    np.testing.assert_allclose(state.mean, mean, rtol=1e-12, atol=1e-12, strict=True)
    np.testing.assert_allclose(state.var, var, rtol=1e-12, strict=True)
    assert state.count == steps


def test_momentum_one_and_zero_are_exact():
    """1 keeps the old statistics to the last bit; 0 takes the new ones and leaves no trace of the old."""
    state = BatchNormState(jnp.asarray([0.1, 1e8]), jnp.asarray([1e-8, 3.3]), jnp.asarray(7))
    x = np.asarray([[1, 2], [3, 2]], np.float32)
    params = BatchNormParams(None, None)
    _, kept = batch_norm(params, state, x, True, momentum=1)
    np.testing.assert_array_equal(kept.mean, state.mean)
    np.testing.assert_array_equal(kept.var, state.var)
    _, taken = batch_norm(params, state, x, True, momentum=0)
    assert_close(taken.mean, np.asarray([2, 2], np.float32))
    assert_close(taken.var, np.asarray([1, 0], np.float32))
    assert kept.count == taken.count == 8


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("number", [float, np.float32, np.float64], ids=lambda t: t.__name__)
def test_the_state_keeps_its_type_whatever_number_the_options_are(number):
    """Otherwise the carry of a scan would change its type: NumPy numbers are options like all others."""
    params, state = init(3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    y, new = batch_norm(params, state, x, True, momentum=number(0.75), epsilon=number(0.25))
    assert [a.dtype for a in (y, *new)] == [a.dtype for a in (x, *state)]
    assert_close((y, new), oracle.batch_norm(params, state, x, True, momentum=0.75, epsilon=0.25))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("of_x", "of_state", "mean", "var"),
    [
        ("bfloat16", "float32", "float32", "float32"),
        ("float16", "float64", "float64", "float64"),
        ("float32", "float64", "float64", "float64"),
        ("float64", "float32", "float64", "float64"),
        ("complex64", "float32", "complex64", "float32"),
        ("complex64", "float64", "complex128", "float64"),
        ("float32", "bfloat16", "float32", "float32"),
    ],
)
def test_the_new_state_has_the_wider_type(of_x, of_state, mean, var):
    params, _ = init(3)
    state = BatchNormState(jnp.full(3, 0.5, of_state), jnp.full(3, 2.0, of_state), jnp.asarray(1, jnp.int32))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), of_x)
    y, new = batch_norm(params, state, x, True, momentum=0.5)
    assert [a.dtype.name for a in (y, *new)] == [of_x, mean, var, "int32"]
    exact = oracle.batch_norm(params, state, x, True, momentum=0.5)[1]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-6), (new.mean, new.var), (exact.mean, exact.var))


def test_numpy_arrays_will_do():
    """NumPy arrays, as loaded from a checkpoint, are accepted."""
    params, state = jax.tree.map(np.asarray, init(3))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    for train in (True, False):
        y, new = batch_norm(params, state, x, train)
        assert isinstance(y, jax.Array)
        assert_close((y, new), oracle.batch_norm(params, state, x, train))
