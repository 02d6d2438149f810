"""The Linen module in models: checkpoints of Flax's norm, and Flax's transformations."""

from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

import jaxbn.linen

OURS, FLAX = jaxbn.linen.BatchNorm, nn.BatchNorm
NORMS = pytest.mark.parametrize(("source", "target"), [(FLAX, OURS), (OURS, FLAX)], ids=["from Flax", "to Flax"])
X = jnp.asarray(np.random.default_rng(0).normal(0.5, 2, (8, 6)), jnp.float32)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


class Network(nn.Module):
    """Norms between other layers, one of them with its own argument and name."""

    norm: type[nn.Module]

    @nn.compact
    def __call__(self, x, train):
        x = self.norm(use_running_average=not train)(nn.Dense(5)(x))
        x = self.norm(use_running_average=not train, use_scale=False, name="second")(nn.relu(x))
        return nn.Dense(2)(x)


def trained(network, steps=3):
    """Variables after some steps, so that nothing in them is an initial value."""
    variables = network.init(jax.random.key(0), X, train=False)
    for step in range(steps):
        _, updates = network.apply(variables, X + step, train=True, mutable=["batch_stats"])
        variables = jax.tree.map(lambda leaf: leaf + 0.1, variables | updates)
    return variables


def assert_equal_networks(left, right):
    """Compare with a tolerance for several layers, and for Flax's E[x²] − E[x]²."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    assert_close(left, right, condition=10)


def test_a_network_has_the_same_variables_and_outputs():
    assert_equal_networks(trained(Network(OURS)), trained(Network(FLAX)))


@NORMS
def test_checkpoints_load_into_either(source, target):
    variables = trained(Network(source))
    stored = flax.serialization.to_bytes(variables)
    fresh = Network(target).init(jax.random.key(1), X, train=False)
    typed: Any = flax.serialization.from_bytes(fresh, stored)  # into the structure of the other's
    plain: Any = flax.serialization.msgpack_restore(stored)  # NumPy arrays in dicts, as they come
    for restored in (typed, plain):
        jax.tree.map(np.testing.assert_array_equal, restored, variables)
        for train in (True, False):
            outputs = [
                Network(norm).apply(given, X, train=train, mutable=["batch_stats"])
                for norm, given in ((target, restored), (source, variables))
            ]
            assert_equal_networks(*outputs)


class Block(nn.Module):
    norm: type[nn.Module]
    train: bool

    @nn.compact
    def __call__(self, x, _=None):
        return x + nn.relu(self.norm(use_running_average=not self.train)(nn.Dense(x.shape[-1])(x))), None


class Scanned(nn.Module):
    """Four blocks, each with its own parameters and statistics, as one loop."""

    norm: type[nn.Module]
    train: bool

    @nn.compact
    def __call__(self, x):
        blocks = nn.scan(Block, {"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=4)
        return blocks(self.norm, self.train)(x)[0]


class Rematerialised(nn.Module):
    norm: type[nn.Module]
    train: bool

    @nn.compact
    def __call__(self, x):
        return nn.remat(Block)(self.norm, self.train)(x)[0]


class Ensemble(nn.Module):
    """Three members, each with its own parameters and statistics, on the same input."""

    norm: type[nn.Module]
    train: bool

    @nn.compact
    def __call__(self, x):
        vmap: Any = nn.vmap  # its declared types leave out None, for an input that all members share
        own = {"params": 0, "batch_stats": 0}
        members = vmap(Block, own, split_rngs={"params": True}, in_axes=None, axis_size=3)
        return members(self.norm, self.train)(x)[0]


@pytest.mark.parametrize("model", [Scanned, Rematerialised, Ensemble])
def test_under_flaxs_transformations(model):
    """Training steps with gradients, then evaluation: equal to Flax's norm under the same transformation."""

    def run(norm):
        variables = model(norm, False).init(jax.random.key(0), X)

        @jax.jit
        def step(variables, x):
            def loss(params):
                given = {"params": params, "batch_stats": variables["batch_stats"]}
                y, updates = model(norm, True).apply(given, x, mutable=["batch_stats"])
                return jnp.sum(jnp.square(y)), updates

            (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
            params = jax.tree.map(lambda p, g: p - 1e-3 * g / value, variables["params"], gradients)
            return {"params": params, **updates}

        for t in range(2):
            variables = step(variables, X * (t + 1))
        return variables, model(norm, False).apply(variables, X)

    assert_equal_networks(run(OURS), run(FLAX))


def test_remat_leaves_the_statistics_as_they_are():
    """The batch is computed twice, once in the backward pass, and updates the statistics once, to the same bits."""
    variables = Rematerialised(OURS, False).init(jax.random.key(0), X)

    def statistics(model):
        def loss(params):
            given = {**variables, "params": params}
            y, updates = model.apply(given, X, mutable=["batch_stats"])
            return jnp.sum(jnp.square(y)), updates

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])[1]

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Block(OURS, True, name="CheckpointBlock_0")(x)[0]

    jax.tree.map(np.testing.assert_array_equal, statistics(Rematerialised(OURS, True)), statistics(Plain()))
