"""The networks: their size to the parameter, their shapes, and what is injected into them."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from jax import lax

import jaxbn.linen
from train.config.sections import PRESETS, Config, NormConfig
from train.network.build import build
from train.network.convolution import convolve
from train.network.models import CNN, MLP, LayerOptions
from train.network.summary import Layer, summarize
from train.training.step import Examples, init_state, train_step


def shapes(model, *shape):
    """The model's variables as shapes, and the inputs for it."""
    inputs = jnp.zeros((2, *shape))
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), inputs), inputs


def test_the_cnn_is_the_keras_one_less_the_biases_in_front_of_norms():
    """https://keras.io/examples: conv2d 320 and 18,496 with 32 and 64 biases, which a norm would subtract again."""
    model = build(PRESETS["mnist-cnn-keras"], (28, 28, 1), 10, "cpu", total_steps=100)
    layers = summarize(model, *shapes(model, 28, 28, 1))
    assert layers == [
        Layer("conv1", "Conv", (26, 26, 32), 320 - 32, 0),
        Layer("norm1", "BatchNorm", (13, 13, 32), 64, 64),
        Layer("conv2", "Conv", (11, 11, 64), 18_496 - 64, 0),
        Layer("norm2", "BatchNorm", (5, 5, 64), 128, 128),
        Layer("dense", "Dense", (256,), 409_856, 0),
        Layer("logits", "Dense", (10,), 2_570, 0),
    ]
    assert sum(layer.trainable for layer in layers) == 431_434 - 96
    assert sum(layer.non_trainable for layer in layers) == 192


def test_the_mlp_for_iris():
    model = build(Config(), (4,), 3, "cpu", total_steps=100)
    assert summarize(model, *shapes(model, 4)) == [
        Layer("dense1", "Dense", (512,), 4 * 512, 0),
        Layer("norm1", "BatchNorm", (512,), 1024, 1024),
        Layer("dense2", "Dense", (512,), 512 * 512, 0),
        Layer("norm2", "BatchNorm", (512,), 1024, 1024),
        Layer("logits", "Dense", (3,), 512 * 3 + 3, 0),
    ]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("model", "shape"), [(CNN(7, channels=(3, 5), hidden=11), (13, 15, 2)), (MLP(7, hidden=(5, 3)), (4, 2))]
)
def test_logits_for_any_number_of_classes_and_inputs_of_any_size(model, shape, train):
    variables, inputs = shapes(model, *shape)
    logits, updates = jax.eval_shape(partial(model.apply, train=train, mutable=["batch_stats"]), variables, inputs)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert updates == {"batch_stats": variables["batch_stats"]}


@pytest.mark.parametrize(("shape", "layers"), [((28, 28, 1), ("conv1", "conv2")), ((4,), ("dense1", "dense2"))])
def test_no_layer_in_front_of_a_norm_has_a_bias(shape, layers):
    model = build(Config(), shape, 3, "cpu", total_steps=100)
    variables, _ = shapes(model, *shape)
    assert [list(variables["params"][name]) for name in layers] == [["kernel"]] * 2
    assert set(variables["params"]["logits"]) == {"kernel", "bias"}


@pytest.mark.parametrize("shape", [(28, 28, 1), (4,)])
def test_the_norms_are_ours_with_the_options_of_the_configuration(shape):
    seen = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, jaxbn.linen.BatchNorm) and context.method_name == "__call__":
            seen.append((context.module.momentum, context.module.epsilon, context.module.use_running_average))
        return call(*args, **kwargs)

    model = build(Config(norm=NormConfig(norm_momentum=0.7, norm_epsilon=0.25)), shape, 3, "cpu", total_steps=100)
    variables, inputs = shapes(model, *shape)
    with nn.intercept_methods(watch):
        jax.eval_shape(partial(model.apply, train=False), variables, inputs)
    assert seen == [(0.7, 0.25, True)] * (3 if len(shape) == 3 else 2)


@pytest.mark.parametrize(("platform", "expected"), [("cpu", convolve), ("gpu", lax.conv_general_dilated)])
def test_the_convolution_suits_the_platform(platform, expected):
    model = build(Config(), (28, 28, 1), 10, platform, total_steps=100)
    assert isinstance(model, CNN)
    assert model.convolution is expected


def three_steps(model, tx, state, data):
    """Parameters and statistics after three steps, as one flat dictionary."""
    step = jax.jit(partial(train_step, model, tx))
    for i in range(3):
        chosen = slice(16 * i, 16 * i + 16)
        state, _ = step(state, Examples(data.inputs[chosen], data.labels[chosen]))
    flat = flatten_dict({"params": state.params, "batch_stats": state.batch_stats}, sep="/")
    return {name: np.asarray(leaf) for name, leaf in flat.items()}


class Theirs(nn.BatchNorm):
    """Flax's norm, with what ours does beside."""

    activation: Any = None
    max_pool: Any = None

    @nn.compact
    def __call__(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        y = self.activation(super().__call__(x))
        return y if self.max_pool is None else self.max_pool(y)


def test_what_is_injected_makes_no_difference_to_the_training(plan, x64):
    """Flax's norm for ours, and either convolution: the same three steps of Adam, to float64's rounding."""
    options = {"momentum": 0.9, "epsilon": 1e-5}
    theirs, ours = partial(Theirs, **options), partial(jaxbn.linen.BatchNorm, **options)
    make, tx = partial(CNN, 3, channels=(4,), hidden=8), optax.adam(1e-2)
    start = jax.jit(lambda x: init_state(make(layers=LayerOptions(theirs)), tx, x, seed=0))(plan.train.inputs)
    start = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, start)
    reference = make(layers=LayerOptions(theirs), convolution=lax.conv_general_dilated)
    expected = three_steps(reference, tx, start, plan.train)
    assert len(expected) == 9
    for convolution in (lax.conv_general_dilated, convolve):
        actual = three_steps(make(layers=LayerOptions(ours), convolution=convolution), tx, start, plan.train)
        assert actual.keys() == expected.keys()
        for name, leaf in actual.items():
            np.testing.assert_allclose(leaf, expected[name], 1e-8, 1e-8, err_msg=name)
