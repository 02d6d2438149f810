"""The summary of networks other than the two that are trained (test_models.py has those)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from train.network.summary import Layer, summarize


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train, use_bias=False, name="norm")(nn.Dense(5, name="dense")(x))


class Nested(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(2, name="last")(Block(name="block")(x, train))


@pytest.fixture
def network():
    model, inputs = Nested(), jnp.zeros((4, 3))
    return model, jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), inputs), inputs


def test_layers_in_layers_are_named_by_their_path(network):
    layers = {layer.name: layer for layer in summarize(*network)}
    assert layers["block/dense"] == Layer("block/dense", "Dense", (5,), 3 * 5 + 5, 0)
    assert layers["block/norm"] == Layer("block/norm", "BatchNorm", (5,), 5, 10)
    assert layers["last"] == Layer("last", "Dense", (2,), 12, 0)


def test_shapes_of_variables_are_enough(network):
    model, variables, inputs = network
    assert {type(leaf) for leaf in jax.tree.leaves(variables)} == {jax.ShapeDtypeStruct}
    arrays = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
    assert summarize(model, variables, inputs) == summarize(model, arrays, inputs)
