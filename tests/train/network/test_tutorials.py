"""The tutorials' networks, beside what the tutorials print of them."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

import jaxbn
from train.config.sections import PRESETS
from train.network.build import build
from train.network.pooling import max_pool
from train.network.summary import Layer, summarize

SHAPES = {"iris": (4,), "cifar10": (32, 32, 3)}  # the others are of 28×28
TUTORIALS = [name for name in PRESETS if name not in ("default", "mnist-cnn-bfloat16", "cifar10-airbench")]
KERNELS = ("conv", "dense", "logits")


def network(name):
    """The network of a preset, and the shape of its inputs."""
    config = PRESETS[name]
    shape = SHAPES.get(config.data.dataset, (28, 28, 1))
    return build(config, shape, 3 if shape == (4,) else 10, "cpu", total_steps=100), shape


def layers(name):
    """The layers of a preset's network, as the summary has them."""
    model, shape = network(name)
    inputs = jnp.zeros((2, *shape))
    return summarize(model, jax.eval_shape(partial(model.init, train=False), jax.random.key(0), inputs), inputs)


def parameters(name):
    """By layer, running statistics included, as Keras's `model.summary()` has them."""
    return {layer.name: layer.trainable + layer.non_trainable for layer in layers(name)}


def totals(name):
    """Parameters that are trained, and that are not."""
    return sum(layer.trainable for layer in layers(name)), sum(layer.non_trainable for layer in layers(name))


def test_mnist_mlp_after_has_the_parameters_that_the_tutorial_prints():
    expected = {"norm0": 3136, "dense1": 235_500, "norm1": 1200, "dense2": 30_100, "norm2": 400, "logits": 1010}
    assert parameters("mnist-mlp-after") == expected
    assert totals("mnist-mlp-after") == (268_978, 2_368)


def test_mnist_mlp_before_spares_the_biases():
    expected = {"norm0": 3136, "dense1": 235_200, "norm1": 1200, "dense2": 30_000, "norm2": 400, "logits": 1010}
    assert parameters("mnist-mlp-before") == expected
    assert totals("mnist-mlp-before") == (268_578, 2_368)


def test_iris_mlp_is_the_tutorials_less_the_biases_in_front_of_norms():
    expected = {"dense1": 2560 - 512, "norm1": 2048, "dense2": 262_656 - 512, "norm2": 2048, "logits": 1539}
    assert parameters("iris-mlp") == expected


def test_cifar10_cnn():
    assert layers("cifar10-cnn") == [
        Layer("conv1", "Conv", (32, 32, 8), 224, 0),
        Layer("norm1", "BatchNorm", (32, 32, 8), 16, 16),
        Layer("conv2", "Conv", (32, 32, 8), 584, 0),
        Layer("norm2", "BatchNorm", (16, 16, 8), 16, 16),
        Layer("conv3", "Conv", (16, 16, 16), 1_168, 0),
        Layer("norm3", "BatchNorm", (16, 16, 16), 32, 32),
        Layer("conv4", "Conv", (16, 16, 16), 2_320, 0),
        Layer("norm4", "BatchNorm", (8, 8, 16), 32, 32),
        Layer("dense", "Dense", (256,), 8 * 8 * 16 * 256 + 256, 0),
        Layer("norm5", "BatchNorm", (256,), 512, 512),
        Layer("logits", "Dense", (10,), 2_570, 0),
    ]
    assert totals("cifar10-cnn") == (269_874, 608)


def test_fashion_mnist_has_the_network_of_mnist():
    assert layers("fashion-mnist-cnn") == layers("mnist-cnn-keras")


def test_two_of_the_four_parameters_of_a_norm_are_trained():
    model, shape = network("mnist-mlp-after")
    variables = model.init(jax.random.key(0), jnp.zeros((2, *shape)), train=False)
    assert set(variables["params"]["norm0"]) == {"scale", "bias"}
    assert set(variables["batch_stats"]["norm0"]) == {"mean", "var"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("iris-mlp", "dense1 norm1 relu dense2 norm2 relu logits"),
        ("mnist-mlp-after", "norm0 dense1 elu norm1 dense2 relu norm2 logits"),
        ("mnist-mlp-before", "norm0 dense1 norm1 elu dense2 norm2 elu logits"),
        (
            "cifar10-cnn",
            "conv1 relu norm1 conv2 relu norm2 max_pool conv3 relu norm3 conv4 relu norm4 max_pool dense relu norm5 "
            "logits",
        ),
        ("fashion-mnist-cnn", "conv1 norm1 relu max_pool conv2 norm2 relu max_pool dense logits"),
        (
            "cifar10-airbench",
            "conv1 max_pool norm1 gelu conv2 max_pool norm2 gelu conv3 max_pool norm3 gelu dense norm4 gelu logits",
        ),
    ],
)
def test_the_order_of_everything(name, expected, monkeypatch):
    seen = []

    def watched(function, label):
        return lambda *args, **kwargs: (seen.append(label), function(*args, **kwargs))[1]

    def watch(call, args, kwargs, context):
        if context.method_name == "__call__" and context.module.name:
            seen.append(context.module.name)
        return call(*args, **kwargs)

    for activation in ("relu", "elu", "gelu"):
        monkeypatch.setattr(nn, activation, watched(getattr(nn, activation), activation))
    monkeypatch.setattr("train.network.models.max_pool", watched(max_pool, "max_pool"))
    model, shape = network(name)
    with nn.intercept_methods(watch):
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((2, *shape)))
    assert " ".join(seen) == expected


def test_cifar10_airbench_has_no_scales():
    model, shape = network("cifar10-airbench")
    params = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((2, *shape)))["params"]
    assert [set(params[f"norm{i}"]) for i in (1, 2, 3, 4)] == [{"bias"}] * 4


@pytest.mark.parametrize("name", TUTORIALS)
def test_kernels_begin_as_in_keras(name):
    """`he_normal` where it is asked for; else `glorot_uniform`, the default, as for the last layer in any case."""
    model, shape = network(name)
    params = jax.jit(partial(model.init, train=False))(jax.random.key(0), jnp.zeros((1, *shape)))["params"]
    for layer, arrays in params.items():
        if layer.startswith(KERNELS):
            kernel = np.asarray(arrays["kernel"])
            window, inputs, outputs = np.prod(kernel.shape[:-2], dtype=int), *kernel.shape[-2:]
            if "mlp-" in name and layer != "logits":
                assert kernel.std() == pytest.approx(np.sqrt(2 / inputs), rel=0.05)
            else:
                limit = np.sqrt(6 / (window * (inputs + outputs)))
                assert 0.8 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
            assert not np.any(arrays.get("bias", 0))


def test_pooling_halves_the_sides():
    images = jax.random.uniform(jax.random.key(0), (1, 6, 6, 3))
    largest = nn.max_pool(images, (2, 2), strides=(2, 2))
    mean = nn.avg_pool(images, (2, 2), strides=(2, 2))
    windows = np.asarray(images).reshape(1, 3, 2, 3, 2, 3)
    np.testing.assert_array_equal(largest, windows.max((2, 4)))
    assert_close(mean, windows.mean((2, 4)))
    assert largest.shape == mean.shape == (1, 3, 3, 3)


# The input that a tutorial prints: batch 4, 8 features.
PRINTED = np.array(
    [
        [-0.16992599, -0.44271073, -0.15898046, 0.16616905, 1.191885, 0.31449863, -0.48410836, 0.21404082],
        [-0.64495176, 1.3623657, 1.0364883, -0.82210755, 1.0531585, -0.7853095, 0.47739026, 0.9115329],
        [-0.01438348, -0.04350211, 0.4746704, -1.4725152, -1.2045451, 0.28328535, -1.5600936, 0.8506983],
        [-0.63360006, 0.55455637, 0.17531596, -0.4450528, 1.417953, 1.4241174, -1.1939405, 1.1587005],
    ],
    np.float32,
)


def test_a_new_norm_called_in_evaluation_is_nearly_the_identity():
    """`layer(data)` in Keras, and `train=False` here: running mean 0 and variance 1, so x/√(1 + ε)."""
    params, state = jaxbn.init(8)
    y, after = jaxbn.batch_norm(params, state, PRINTED, train=False, epsilon=1e-3)
    assert_close(y, PRINTED / np.sqrt(1.001))
    assert np.abs(y - PRINTED).max() < 1e-3
    assert after is state


def test_numbers_like_those_of_the_tutorial_come_from_training():
    """Each feature with mean 0 and variance 1 over the batch."""
    params, state = jaxbn.init(8)
    y, _ = jaxbn.batch_norm(params, state, PRINTED, train=True, epsilon=0.0)
    x = PRINTED.astype(np.float64)
    assert_close(y, (x - x.mean(0)) / x.std(0))
