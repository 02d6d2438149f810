"""The tutorials' networks, beside what the tutorials print of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from train.networks import Cifar10Cnn, IrisMlp, MnistMlpAfter, MnistMlpBefore


def parameters(model, shape):
    """The number of parameters of each layer, running statistics included, as `model.summary()` counts them."""
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((2, *shape)), train=False))
    stats = variables["batch_stats"]
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves((layer, stats.get(name, {}))))
        for name, layer in variables["params"].items()
    }


def test_mnist_mlp_after_has_the_parameters_of_the_summary():
    expected = {"norm0": 3136, "dense1": 235_500, "norm1": 1200, "dense2": 30_100, "norm2": 400, "logits": 1010}
    assert parameters(MnistMlpAfter(), (28, 28, 1)) == expected


def test_mnist_mlp_before_spares_the_biases():
    expected = {"norm0": 3136, "dense1": 235_200, "norm1": 1200, "dense2": 30_000, "norm2": 400, "logits": 1010}
    assert parameters(MnistMlpBefore(), (28, 28, 1)) == expected


def test_iris_mlp():
    expected = {"dense1": 2560, "norm1": 2048, "dense2": 262_656, "norm2": 2048, "logits": 1539}
    assert parameters(IrisMlp(), (4,)) == expected


def test_cifar10_cnn():
    expected = {"conv1": 224, "norm1": 32, "conv2": 584, "norm2": 32, "conv3": 1168, "norm3": 64, "conv4": 2320}
    expected |= {"norm4": 64, "dense": 262_400, "norm5": 1024, "logits": 2570}
    assert parameters(Cifar10Cnn(), (32, 32, 3)) == expected


def test_two_of_the_four_parameters_of_a_norm_are_trained():
    variables = MnistMlpAfter().init(jax.random.key(0), jnp.zeros((2, 28, 28, 1)), train=False)
    assert set(variables["params"]["norm0"]) == {"scale", "bias"}
    assert set(variables["batch_stats"]["norm0"]) == {"mean", "var"}


@pytest.mark.parametrize("before", [False, True])
def test_the_order_of_norm_and_activation(before):
    """In training, with a norm last, each unit has mean 0 over the batch; with relu last, none is negative."""
    images = jax.random.uniform(jax.random.key(0), (16, 28, 28, 1))
    model = MnistMlpBefore(activations=(nn.relu, nn.relu)) if before else MnistMlpAfter(activations=(nn.relu, nn.relu))
    variables = model.init(jax.random.key(1), images, train=False)
    variables["params"]["logits"] = {"kernel": jnp.eye(100)[:, :10], "bias": jnp.zeros(10)}
    hidden, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    if before:
        assert hidden.min() == 0
    else:
        np.testing.assert_allclose(hidden.mean(0), 0, atol=1e-6)


def test_the_norm_of_cifar10_cnn_may_come_before_or_not_at_all():
    images = jnp.zeros((2, 32, 32, 3))
    shapes = jax.eval_shape(lambda: Cifar10Cnn(before=True).init(jax.random.key(0), images, train=False))
    assert all("bias" not in shapes["params"][name] for name in ("conv1", "conv2", "conv3", "conv4", "dense"))
    assert "batch_stats" not in Cifar10Cnn(norm=None).init(jax.random.key(0), images, train=False)


def test_pooling_halves_the_sides():
    images = jax.random.uniform(jax.random.key(0), (1, 6, 6, 3))
    largest = nn.max_pool(images, (2, 2), strides=(2, 2))
    mean = nn.avg_pool(images, (2, 2), strides=(2, 2))
    windows = np.asarray(images).reshape(1, 3, 2, 3, 2, 3)
    np.testing.assert_array_equal(largest, windows.max((2, 4)))
    np.testing.assert_allclose(mean, windows.mean((2, 4)), rtol=1e-6)
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
    np.testing.assert_allclose(y, PRINTED / np.sqrt(1.001), rtol=1e-6)
    assert np.abs(y - PRINTED).max() < 1e-3
    assert after is state


def test_numbers_like_those_of_the_tutorial_come_from_training():
    """Each feature with mean 0 and variance 1 over the batch."""
    params, state = jaxbn.init(8)
    y, _ = jaxbn.batch_norm(params, state, PRINTED, train=True, epsilon=0.0)
    x = PRINTED.astype(np.float64)
    np.testing.assert_allclose(y, (x - x.mean(0)) / x.std(0), atol=2e-6)
