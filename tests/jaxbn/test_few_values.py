"""Batches without a variance: without rows nothing changes, and with one row the modules do as Flax does."""

import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import POOLED
from closeness import assert_close
from equivalence import assert_same, batch
from flax import nnx
from jax.sharding import PartitionSpec

import jaxbn.linen
import jaxbn.nnx
from jaxbn import BatchNormParams, BatchNormState, BatchRenorm, batch_norm, cumulative, recalibrate

KEY = jax.random.key(0)
PARAMS = BatchNormParams(jnp.asarray([1.0, 0.5, 2.0]), jnp.asarray([0.0, 1.0, -1.0]))
STATE = BatchNormState(jnp.asarray([0.0, 1.0, 25.0]), jnp.asarray([1.0, 0.5, 2.0]), jnp.asarray(4))
OPTIONS: dict[str, Any] = {
    "plain": {},
    "channels first": {"axis": 1},
    "unbiased": {"unbiased": True, "momentum": cumulative()},
    "masked": {"mask": np.ones((1, 1, 3), bool)},
    "ghost batches": {"ghost_batch_size": 4},
    "renorm": {"renorm": BatchRenorm(3, 5)},
    "pooled": {**POOLED, "activation": "relu"},
    "pooled after": {**POOLED, "activation": "silu"},
}
one_value = pytest.warns(UserWarning, match=r"more than one value per channel.*has 1\. .*use_running_average=True")


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "untracked"])
def test_without_rows_the_state_is_unchanged(options, tracked):
    if not tracked and "renorm" in options:
        return  # which needs a state

    @jax.jit
    def run(params, x):
        def loss(params, x):
            y, state = batch_norm(params, STATE if tracked else None, x, True, **options)
            return jnp.sum(y), (y, state)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    (_, (y, state)), (of_params, of_x) = run(PARAMS, jnp.ones((0, 3, 3)))
    assert y.shape == (0, 1 if "max_pool" in options else 3, 3)
    assert of_x.shape == (0, 3, 3)
    jax.tree.map(np.testing.assert_array_equal, of_params, jax.tree.map(jnp.zeros_like, PARAMS))
    jax.tree.map(np.testing.assert_array_equal, state, STATE if tracked else None)


def test_without_rows_the_very_same_state_is_returned():
    assert batch_norm(PARAMS, STATE, jnp.ones((0, 3)), True)[1] is STATE


def test_without_rows_on_any_shard():
    mesh = jax.make_mesh((8,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    run = jax.shard_map(
        lambda x: batch_norm(PARAMS, STATE, x, True, axis_name="shards"),
        mesh=mesh,
        in_specs=PartitionSpec("shards"),
        out_specs=(PartitionSpec("shards"), PartitionSpec()),
    )
    y, state = jax.jit(run)(jnp.ones((0, 3)))
    assert y.shape == (0, 3)
    jax.tree.map(np.testing.assert_array_equal, state, STATE)


def test_without_rows_the_modules_keep_their_statistics():
    """In the same case, Flax's statistics become NaN."""
    linen: Any = jaxbn.linen.BatchNorm(False, momentum=cumulative())
    variables = linen.init(KEY, jnp.ones((0, 3)))
    y, updates = linen.apply(variables, jnp.ones((0, 3)), mutable=["batch_stats"])
    assert y.shape == (0, 3)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])

    module: Any = jaxbn.nnx.BatchNorm(3, momentum=cumulative(), rngs=nnx.Rngs(0))
    assert module(jnp.ones((0, 3))).shape == (0, 3)
    np.testing.assert_array_equal(module.var[...], np.ones(3))
    assert module.count[...] == 0


def test_a_batch_without_rows_counts_for_nothing_in_recalibration():
    norm: Any = jaxbn.linen.BatchNorm(use_running_average=False)
    x = batch(shape=(8, 3))
    variables = norm.init(KEY, x)

    def apply(variables, x):
        return norm.apply(variables, x, mutable=["batch_stats"])

    with_empty, without = (recalibrate(apply, variables, batches) for batches in ([x, x[:0]], [x]))
    assert_same(with_empty, without)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_value_in_linen_is_as_in_flax(axis, dtype):
    def run(norm):
        module: Any = norm(use_running_average=False, axis=axis, momentum=0.5, bias_init=nn.initializers.normal())
        y, variables = module.init_with_output(KEY, x)  # silently: a module is often initialised with one example

        def loss(params, x):
            y, updates = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(y.astype(jnp.float32) ** 2), (y, updates)

        gradients, (again, updates) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
        return y, variables, again, updates, gradients

    x = batch(dtype, shape=(1, 1, 6) if axis == -1 else (1, 6, 1))
    with one_value as seen:
        ours = run(jaxbn.linen.BatchNorm)
    assert len(seen) == 1
    assert_same(ours, run(nn.BatchNorm))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_value_in_nnx_is_as_in_flax(dtype):
    def run(norm):
        module = norm(6, momentum=0.5, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(0))

        def loss(module):
            y = module(x)
            return jnp.sum(y.astype(jnp.float32) ** 2), y

        gradients, y = nnx.grad(loss, has_aux=True)(module)
        return y, nnx.to_pure_dict(nnx.state(module)), nnx.to_pure_dict(gradients)

    x = batch(dtype, shape=(1, 6))
    with one_value:
        ours = run(jaxbn.nnx.BatchNorm)
    assert_same(ours, run(nnx.BatchNorm))


def test_one_value_has_no_unbiased_variance():
    x = batch(shape=(1, 6))
    module = jaxbn.nnx.BatchNorm(6, momentum=0.5, unbiased=True, rngs=nnx.Rngs(0))
    with one_value:
        module(x)
    np.testing.assert_array_equal(module.var[...], np.ones(6))
    assert_close(module.mean[...], x[0] / 2)


def test_groups_of_one_value():
    module = jaxbn.nnx.BatchNorm(6, momentum=0.5, ghost_batch_size=1, rngs=nnx.Rngs(0))
    with one_value:
        y = module(batch(shape=(4, 6)))
    np.testing.assert_array_equal(y, np.zeros((4, 6)))
    assert_close(module.var[...], np.full(6, 0.5), size=0)


def test_one_value_on_each_shard_is_enough():
    x = batch(shape=(4, 1, 6))
    graph, state = nnx.split(jaxbn.nnx.BatchNorm(6, axis_name="shards", rngs=nnx.Rngs(0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = jax.vmap(lambda x, state: nnx.merge(graph, state)(x), (0, None), axis_name="shards")(x, state)
    assert_close(y.mean(0), np.zeros((1, 6)))


def test_evaluation_of_one_value_is_silent():
    x = batch(shape=(1, 6))
    jaxbn.nnx.BatchNorm(6, use_running_average=True, rngs=nnx.Rngs(0))(x)
    module: Any = jaxbn.linen.BatchNorm(use_running_average=True)
    module.apply(module.init(KEY, x), x)
