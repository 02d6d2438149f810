"""The networks, with the norm and the convolution injected."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

import jaxbn.linen
from train.config import Config
from train.convolution import Convolution, convolution_for

Norm = Callable[..., nn.Module]


class CNN(nn.Module):
    """Convolution 3×3, norm, relu, max pool 2×2, for each entry of `channels`; then a hidden layer and the logits.

    A convolution in front of a norm has no bias: the norm would subtract it again.

    Attributes:
        num_classes: logits.
        channels: features of each convolution.
        hidden: features of the dense layer before the logits; it has no activation, as in the Keras original.
        norm: makes a norm module, called with (name, use_running_average).
        convolution: what `flax.linen.Conv` calls; choose by platform with `convolution_for`.

    """

    num_classes: int
    channels: Sequence[int] = (32, 64)
    hidden: int = 256
    norm: Norm = jaxbn.linen.BatchNorm
    convolution: Convolution = lax.conv_general_dilated

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images (N, H, W, C) to logits (N, num_classes)."""
        for i, features in enumerate(self.channels, 1):
            conv = partial(nn.Conv, features, (3, 3), padding="VALID", conv_general_dilated=self.convolution)
            x = conv(use_bias=False, name=f"conv{i}")(x)
            x = self.norm(use_running_average=not train, name=f"norm{i}")(x)
            x = max_pool(nn.relu(x))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(self.hidden, name="dense")(x)
        return nn.Dense(self.num_classes, name="logits")(x)


class MLP(nn.Module):
    """Dense, norm, relu, as often as `hidden` has entries; then the logits.

    Attributes:
        num_classes: logits.
        hidden: features of each hidden layer.
        norm: makes a norm module, called with (name, use_running_average).

    """

    num_classes: int
    hidden: Sequence[int] = (512, 512)
    norm: Norm = jaxbn.linen.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features (N, …) to logits (N, num_classes)."""
        x = x.reshape(x.shape[0], -1)
        for i, features in enumerate(self.hidden, 1):
            x = nn.Dense(features, use_bias=False, name=f"dense{i}")(x)
            x = nn.relu(self.norm(use_running_average=not train, name=f"norm{i}")(x))
        return nn.Dense(self.num_classes, name="logits")(x)


def max_pool(x: jax.Array) -> jax.Array:
    """2×2 maxima of NHWC images, as maxima of slices.

    On CPU faster than `flax.linen.max_pool`, whose gradient is a scatter; elsewhere it fuses with its neighbours.

    Example:
        >>> import jax.numpy as jnp
        >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1)).reshape(2, 2).tolist()
        [[5.0, 7.0], [13.0, 15.0]]

    """
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def build(config: Config, input_shape: tuple[int, ...], num_classes: int, platform: str) -> nn.Module:
    """The network for inputs of a shape: a CNN for images (H, W, C), an MLP for feature vectors."""
    norm = partial(jaxbn.linen.BatchNorm, momentum=config.norm.norm_momentum, epsilon=config.norm.norm_epsilon)
    if len(input_shape) == 3:
        return CNN(num_classes, norm=norm, convolution=convolution_for(platform))
    return MLP(num_classes, norm=norm)
