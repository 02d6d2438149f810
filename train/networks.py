"""The networks of the tutorials that this project began with, layer by layer as they are there."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
from jax import lax

import jaxbn.linen
from train.convolution import Convolution
from train.models import max_pool

Norm = Callable[..., nn.Module]

KERAS_NORM: Norm = partial(jaxbn.linen.BatchNorm, momentum=0.99, epsilon=1e-3)  # Keras's defaults
HE = nn.initializers.he_normal()
GLOROT = nn.initializers.glorot_uniform()  # Keras's default


class MnistMlpAfter(nn.Module):
    """`mnist-mlp-after`: norm of the input; 300 elu and 100 relu units, each followed by a norm; the logits.

    Attributes:
        norm: makes a norm module, called with (name, use_running_average); None for no norm.
        activations: of the two hidden layers.

    """

    norm: Norm | None = KERAS_NORM
    activations: tuple[Callable[[jax.Array], jax.Array], ...] = (nn.elu, nn.relu)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images (N, 28, 28, 1) to logits (N, 10)."""
        x = _norm(self.norm, x.reshape(x.shape[0], -1), train, "norm0")
        for i, (features, activation) in enumerate(zip((300, 100), self.activations, strict=True), 1):
            x = activation(nn.Dense(features, kernel_init=HE, name=f"dense{i}")(x))
            x = _norm(self.norm, x, train, f"norm{i}")
        return nn.Dense(10, kernel_init=GLOROT, name="logits")(x)


class MnistMlpBefore(nn.Module):
    """`mnist-mlp-before`: the same, but each norm comes before its activation, elu twice, and the layer has no bias.

    Attributes:
        norm: makes a norm module, called with (name, use_running_average).
        activations: of the two hidden layers.

    """

    norm: Norm = KERAS_NORM
    activations: tuple[Callable[[jax.Array], jax.Array], ...] = (nn.elu, nn.elu)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images (N, 28, 28, 1) to logits (N, 10)."""
        x = _norm(self.norm, x.reshape(x.shape[0], -1), train, "norm0")
        for i, (features, activation) in enumerate(zip((300, 100), self.activations, strict=True), 1):
            x = nn.Dense(features, use_bias=False, kernel_init=HE, name=f"dense{i}")(x)
            x = activation(_norm(self.norm, x, train, f"norm{i}"))
        return nn.Dense(10, kernel_init=GLOROT, name="logits")(x)


class IrisMlp(nn.Module):
    """`iris-mlp`: 4-512-512-3, each hidden layer followed by norm and relu.

    The hidden layers keep their biases, as there; in front of a norm they have no effect.
    """

    norm: Norm = KERAS_NORM

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features (N, 4) to logits (N, 3)."""
        for i in (1, 2):
            x = nn.Dense(512, kernel_init=GLOROT, name=f"dense{i}")(x)
            x = nn.relu(_norm(self.norm, x, train, f"norm{i}"))
        return nn.Dense(3, kernel_init=GLOROT, name="logits")(x)


class Cifar10Cnn(nn.Module):
    """`cifar10-cnn`: twice two 3×3 convolutions and a pooling (8, 8, 16, 16 channels), 256 units; relu, then norm.

    Attributes:
        norm: makes a norm module, called with (name, use_running_average); None for no norm.
        before: the norm comes before the activation instead, and the layer has no bias.
        convolution: what `flax.linen.Conv` calls; choose by platform with `convolution_for`.

    """

    norm: Norm | None = KERAS_NORM
    before: bool = False
    convolution: Convolution = lax.conv_general_dilated

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images (N, 32, 32, 3) to logits (N, 10); other sizes and channels work too."""
        bias = self.norm is None or not self.before
        conv = partial(nn.Conv, kernel_size=(3, 3), padding="SAME", conv_general_dilated=self.convolution)
        for i, features in enumerate((8, 8, 16, 16), 1):
            x = conv(features, use_bias=bias, kernel_init=GLOROT, name=f"conv{i}")(x)
            x = self._norm_and_relu(x, train, f"norm{i}")
            x = x if i % 2 else max_pool(x)
        x = nn.Dense(256, use_bias=bias, kernel_init=GLOROT, name="dense")(x.reshape(x.shape[0], -1))
        return nn.Dense(10, kernel_init=GLOROT, name="logits")(self._norm_and_relu(x, train, "norm5"))

    def _norm_and_relu(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        if self.before:
            return nn.relu(_norm(self.norm, x, train, name))
        return _norm(self.norm, nn.relu(x), train, name)


def _norm(norm: Norm | None, x: jax.Array, train: bool, name: str) -> jax.Array:
    return x if norm is None else norm(use_running_average=not train, name=name)(x)
