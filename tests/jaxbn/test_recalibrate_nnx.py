"""`jaxbn.nnx.recalibrate` beside `jaxbn.recalibrate`: the same numbers, in place."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close
from flax import nnx

import jaxbn.nnx


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly."""


class Network(nnx.Module):
    """Dense, norm, relu and dropout, once per layer."""

    def __init__(self, layers=1, norm: Any = jaxbn.nnx.BatchNorm, dropout=0.0):
        rngs = nnx.Rngs(0, dropout=1)
        self.dense = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.List([norm(3, rngs=rngs) for _ in range(layers)])
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x, mask=None):
        for dense, norm in zip(self.dense, self.norm, strict=True):
            x = self.dropout(nnx.relu(norm(dense(x), mask=mask) if mask is not None else norm(dense(x))))
        return x


def data(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(1, 2, (64, 3)), jnp.float32)


def batches(x, sizes):
    return jnp.split(x, np.cumsum(sizes)[:-1])


def exactly_calibrated(model, x):
    """The exact statistics in float64, norm by norm: of its inputs in evaluation behind calibrated norms."""
    values, stats = oracle.wide(x), []
    for dense, norm in zip(model.dense, model.norm, strict=True):
        values = values @ oracle.wide(dense.kernel[...]) + oracle.wide(dense.bias[...])
        stats.append((values.mean(0), values.var(0)))
        values = (values - values.mean(0)) / np.sqrt(values.var(0) + norm.epsilon)
        values = np.maximum(values * oracle.wide(norm.scale[...]) + oracle.wide(norm.bias[...]), 0)
    return stats


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("sizes", [[64], [32, 32], [10, 20, 34]], ids=str)
def test_the_statistics_of_evaluation_on_all_the_data(layers, sizes):
    model, x = Network(layers), data()
    graph = nnx.graphdef(model)
    parameters = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    jaxbn.nnx.recalibrate(model, batches(x, sizes))
    for norm, (mean, var) in zip(model.norm, exactly_calibrated(model, x), strict=True):
        assert_close(norm.mean[...], mean, condition=5)
        assert_close(norm.var[...], var, condition=5, size=0)
    jax.tree.map(np.testing.assert_array_equal, parameters, nnx.state(model, nnx.Param))
    assert nnx.graphdef(model) == graph


def test_masks_and_weights():
    """Masked entries count as if they were absent; a weight counts as a repeated batch."""
    model, x = Network(), data()
    rows = np.arange(64) % 3 > 0
    inputs = [(jnp.where(rows[:, None], x, jnp.nan)[a:b], rows[a:b, None]) for a, b in ((0, 20), (20, 64))]
    jaxbn.nnx.recalibrate(model, inputs, call=lambda model, batch: model(*batch), weights=[2.0, 1.0])
    dense: Any = model.dense[0]
    values = oracle.wide(x) @ oracle.wide(dense.kernel[...]) + oracle.wide(dense.bias[...])
    w = rows * np.repeat([2, 1], [20, 44])
    mean = np.average(values, axis=0, weights=w)
    assert_close(model.norm[0].mean[...], mean)
    assert_close(model.norm[0].var[...], np.average((values - mean) ** 2, axis=0, weights=w), size=0)


def test_nothing_else_changes():
    """Random number generators do not change, and training continues as before."""
    model, x = Network(dropout=0.5), data()
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Not(nnx.BatchStat)))
    jaxbn.nnx.recalibrate(model, [x, x[:7]], passes=1)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), before, nnx.state(model, nnx.Not(nnx.BatchStat)))
    assert len(jax.tree.leaves(same)) == 6  # kernel, bias, scale, bias, the dropout's key and count
    assert all(jax.tree.leaves(same))
    norm = model.norm[0]
    mean = jnp.copy(norm.mean[...])
    norm(x)
    assert_close(norm.mean[...], 0.99 * mean + 0.01 * x.mean(0), condition=5)


def test_an_ensemble_under_vmap():
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(key):
        return jaxbn.nnx.BatchNorm(3, rngs=nnx.Rngs(key))

    x = jnp.stack([data(1), data(2)])
    model = make(jax.random.split(jax.random.key(0), 2))
    call = nnx.vmap(lambda norm, x: norm(x), in_axes=(0, 0))
    jaxbn.nnx.recalibrate(model, [x[:, :20], x[:, 20:]], call=call)
    assert_close(model.mean[...], oracle.wide(x).mean(1))
    assert_close(model.var[...], oracle.wide(x).var(1), size=0)


def test_what_is_wrong_is_said():
    x = data()
    model = Network()
    model.eval()
    with pytest.raises(ValueError, match=r"must run in training mode.*model\.train\(\)"):
        jaxbn.nnx.recalibrate(model, [x])
    with pytest.raises(ValueError, match=r"norm/0 must record the moments of its batch.*jaxbn\.nnx\.BatchNorm"):
        jaxbn.nnx.recalibrate(Network(norm=nnx.BatchNorm), [x])
    with pytest.raises(ValueError, match="must have norms to recalibrate"):
        jaxbn.nnx.recalibrate(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), [x])
