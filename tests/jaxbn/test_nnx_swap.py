"""With `flax.nnx.BatchNorm` replaced by ours, everything that Flax documents and tests of it still holds.

Each test also runs with Flax's own class, which shows that the assertions describe Flax's behaviour.
"""

import doctest
import inspect
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close
from flax import nnx

import jaxbn.linen
import jaxbn.nnx

DOCUMENTED = inspect.getdoc(nnx.BatchNorm) or ""  # before anything is swapped
X = jax.random.normal(jax.random.key(1), (8, 3, 6)) * 2 + 1


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


@pytest.fixture(autouse=True, params=["swapped", "Flax"])
def swap(request, monkeypatch):
    """Run each test with either library's classes as `nnx.BatchNorm` and `nn.BatchNorm`."""
    if request.param == "swapped":
        monkeypatch.setattr(nnx, "BatchNorm", jaxbn.nnx.BatchNorm)
        monkeypatch.setattr(nn, "BatchNorm", jaxbn.linen.BatchNorm)


def test_the_examples_of_the_docstring():
    test = doctest.DocTestParser().get_doctest(DOCUMENTED, {}, "flax.nnx.BatchNorm", None, None)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test)
    assert result.failed == 0
    assert result.attempted > 10


@pytest.mark.parametrize("use_running_average", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.float16])
@pytest.mark.parametrize("masked", [True, False])
def test_linen_and_nnx_agree(use_running_average, dtype, param_dtype, masked):
    """Flax's own comparison of both: one call with the same variables."""
    options: Any = {"use_running_average": use_running_average, "dtype": dtype, "param_dtype": param_dtype}
    mask = jnp.arange(8)[:, None, None] < 5 if masked else None
    module = nnx.BatchNorm(6, rngs=nnx.Rngs(42), **options)
    linen: Any = nn.BatchNorm(**options)
    variables = linen.init(jax.random.key(42), X)
    y_linen, updates = linen.apply(variables, X, mask=mask, mutable=["batch_stats"])
    y = module(X, mask=mask)
    assert y.dtype == y_linen.dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.asarray(y, float), np.asarray(y_linen, float), atol=tolerance)
    if not use_running_average:
        np.testing.assert_allclose(module.mean[...], updates["batch_stats"]["mean"], atol=tolerance)
        np.testing.assert_allclose(module.var[...], updates["batch_stats"]["var"], atol=tolerance)


def test_normalised_and_tracked():
    module = nnx.BatchNorm(6, momentum=0.9, rngs=nnx.Rngs(0))
    y = module(X)
    assert_close(y.mean((0, 1)), np.zeros(6), condition=5)
    np.testing.assert_allclose(y.var((0, 1)), 1, atol=1e-4)  # but for ε
    assert_close(module.mean[...], 0.1 * X.mean((0, 1)))
    assert_close(module.var[...], 0.9 + 0.1 * X.var((0, 1)), condition=5, size=0)
    evaluated = (X - module.mean[...]) / np.sqrt(module.var[...] + 1e-5)
    assert_close(module(X, use_running_average=True), evaluated, condition=5)


class MLP(nnx.Module):
    """The network of Flax's NNX basics: a norm, a dropout, and the modes of both."""

    def __init__(self, din: int, dmid: int, dout: int, *, rngs: nnx.Rngs):
        self.linear1 = nnx.Linear(din, dmid, rngs=rngs)
        self.dropout = nnx.Dropout(rate=0.1, rngs=rngs)
        self.bn = nnx.BatchNorm(dmid, rngs=rngs)
        self.linear2 = nnx.Linear(dmid, dout, rngs=rngs)

    def __call__(self, x):
        return self.linear2(nnx.gelu(self.dropout(self.bn(self.linear1(x)))))


class CNN(nnx.Module):
    """The network of Flax's MNIST tutorial with fewer features."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 4, kernel_size=(3, 3), rngs=rngs)
        self.batch_norm1 = nnx.BatchNorm(4, rngs=rngs)
        self.dropout1 = nnx.Dropout(rate=0.025, rngs=rngs)
        self.conv2 = nnx.Conv(4, 8, kernel_size=(3, 3), rngs=rngs)
        self.batch_norm2 = nnx.BatchNorm(8, rngs=rngs)
        self.avg_pool = partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))
        self.linear = nnx.Linear(32, 3, rngs=rngs)

    def __call__(self, x):
        x = self.avg_pool(nnx.relu(self.batch_norm1(self.dropout1(self.conv1(x)))))
        x = self.avg_pool(nnx.relu(self.batch_norm2(self.conv2(x))))
        return self.linear(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_a_training_of_the_tutorials(kind):
    """`nnx.jit`, `nnx.value_and_grad`, `nnx.Optimizer`, views for training and evaluation."""
    rng = np.random.default_rng(0)
    model = CNN(rngs=nnx.Rngs(0)) if kind is CNN else MLP(6, 16, 3, rngs=nnx.Rngs(0))
    x = jnp.asarray(rng.normal(size=(32, 8, 8, 1) if kind is CNN else (32, 6)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, 32))
    optimizer = nnx.Optimizer(model, optax.adamw(2e-2, 0.9), wrt=nnx.Param)
    training = nnx.view(model, deterministic=False, use_running_average=False)
    evaluation = nnx.view(model, deterministic=True, use_running_average=True)

    def loss(model, x, labels):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()

    @nnx.jit
    def train_step(model, optimizer, x, labels):
        value, gradients = nnx.value_and_grad(loss)(model, x, labels)
        optimizer.update(model, gradients)
        return value

    first = last = train_step(training, optimizer, x, labels)
    for _ in range(150):
        last = train_step(training, optimizer, x, labels)
    assert last < 0.2 * first
    assert nnx.jit(loss)(evaluation, x, labels) < 0.5 * first


def test_state_by_kind():
    """`nnx.split` by filters: parameters, statistics and the rest."""
    model = MLP(6, 4, 3, rngs=nnx.Rngs(0))
    graph, params, statistics, rest = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    assert jax.tree.map(jnp.shape, nnx.to_pure_dict(statistics)) == {"bn": {"mean": (4,), "var": (4,)}}
    assert jax.tree.map(jnp.shape, nnx.to_pure_dict(params)["bn"]) == {"bias": (4,), "scale": (4,)}
    y = nnx.merge(graph, params, statistics, rest)(X[:, 0])
    assert y.shape == (8, 3)


def test_modes():
    model = MLP(6, 4, 3, rngs=nnx.Rngs(0))
    assert not model.bn.use_running_average
    model.eval()
    assert model.bn.use_running_average
    before = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    model(X[:, 0])
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    model.train()
    assert not model.bn.use_running_average
    with pytest.raises(ValueError, match="use_running_average"):
        nnx.BatchNorm(6, use_running_average=None, rngs=nnx.Rngs(0))(X)


def test_statistics_shared_under_vmap():
    module = nnx.BatchNorm(6, momentum=0.9, axis_name="batch", rngs=nnx.Rngs(0))
    axes = nnx.StateAxes({...: None})
    apply = nnx.vmap(lambda module, x: module(x), in_axes=(axes, 0), axis_name="batch")
    y = nnx.jit(apply)(module, X)
    assert_close(y.mean((0, 1)), np.zeros(6), condition=5)
    assert_close(module.mean[...], 0.1 * X.mean((0, 1)))
    assert_close(module.var[...], 0.9 + 0.1 * X.var((0, 1)), condition=5, size=0)


def test_bridges():
    """An NNX module in Linen, a Linen module in NNX."""
    x = X[:, 0]
    plain = nnx.BatchNorm(6, rngs=nnx.Rngs(0))
    expected = plain(x)

    linen = nnx.bridge.ToLinen(nnx.BatchNorm, args=(6,))
    variables = linen.init(jax.random.key(0), x)
    y, updates = linen.apply(variables, x, mutable=["BatchStat", "batch_stats"])
    assert_close(y, expected)
    assert len(jax.tree.leaves(updates)) >= 2

    module: Any = nnx.bridge.ToNNX(nn.BatchNorm(use_running_average=False), rngs=nnx.Rngs(0)).lazy_init(x)
    assert_close(module(x, mutable=["batch_stats"]), expected)
    assert_close(module.mean[...], plain.mean[...])
