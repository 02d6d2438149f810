"""The networks, with the norm and the convolution injected."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
from jax import lax

import jaxbn.linen
from train.network.convolution import Convolution
from train.network.pooling import max_pool
from train.network.view import View

Norm = Callable[..., nn.Module]
Activation = Callable[[jax.Array], jax.Array]

LECUN = nn.initializers.lecun_normal()


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """The options that all layers of a network share.

    Attributes:
        norm: makes a norm module, called with (name, use_running_average), and where pooling follows, as a
            `jaxbn.linen.BatchNorm`, with (activation, max_pool); None for no norm.
        placement: the place of the norm: "before" the activation, "after" it, or "pooled": before it, and after the
            pooling where there is any.
        activation: a function of an array, or a tuple with one for each activated layer.
        dropout: the fraction of the hidden features that is set to 0 in training.
        kernel_init: Flax's initializer of the kernels.
        logits_init: the initializer of the last kernel; None: the same as for the others.
        dtype: the computing dtype; None: that of the inputs and parameters.

    """

    norm: Norm | None = jaxbn.linen.BatchNorm
    placement: Literal["before", "after", "pooled"] = "before"
    activation: Activation | tuple[Activation, ...] = nn.relu
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = LECUN
    logits_init: nn.initializers.Initializer | None = None
    dtype: Any = None

    @property
    def bias(self) -> bool:
        """True if the layer in front has a bias; a norm right behind it would subtract it."""
        return self.norm is None or self.placement == "after"

    def normalize(self, x: jax.Array, train: bool, name: str, **behind: Activation) -> jax.Array:
        """Apply the norm, if there is one, and the functions behind it."""
        if self.norm is not None:
            return self.norm(use_running_average=not train, name=name, **behind)(x)
        for function in behind.values():
            x = function(x)
        return x

    def normalize_and_activate(
        self, x: jax.Array, train: bool, name: str, layer: int = 0, max_pool: Activation | None = None
    ) -> jax.Array:
        """Apply norm, activation and pooling in their order; `layer` numbers the activated layers from 0."""
        activate = self.activation[layer] if isinstance(self.activation, tuple) else self.activation
        after = self.placement == "after"
        if self.placement == "pooled" and max_pool is not None:
            x, max_pool = max_pool(x), None
        if max_pool is None:
            return self.normalize(activate(x), train, name) if after else activate(self.normalize(x, train, name))
        if after:
            return self.normalize(activate(x), train, name, max_pool=max_pool)
        return self.normalize(x, train, name, activation=activate, max_pool=max_pool)

    def drop(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        """Apply dropout, if there is any."""
        return nn.Dropout(self.dropout, deterministic=not train, name=name)(x) if self.dropout else x

    def logits(self, x: jax.Array, num_classes: int) -> jax.Array:
        """Apply the last layer."""
        return nn.Dense(num_classes, kernel_init=self.logits_init or self.kernel_init, dtype=self.dtype, name="logits")(
            x
        )


class CNN(nn.Module):
    """Convolution 3×3, norm, relu, max pool 2×2, for each entry of `channels`; then a hidden layer and the logits.

    Attributes:
        num_classes: logits.
        channels: features of each convolution.
        hidden: features of the dense layer before the logits.
        layers: norm, activation and the like.
        convolution: what `flax.linen.Conv` calls; choose by platform with `convolution_for`.
        pool_every: convolutions from one pooling to the next.
        padding: of the convolutions, "VALID" or "SAME".
        norm_input: normalize the images first.
        norm_hidden: give the dense layer a norm and an activation; otherwise it has neither.
        view: how the images are prepared; in training, random shifts use the rng "shift".

    """

    num_classes: int
    channels: Sequence[int] = (32, 64)
    hidden: int = 256
    layers: LayerOptions = LayerOptions()
    convolution: Convolution = lax.conv_general_dilated
    pool_every: int = 1
    padding: str = "VALID"
    norm_input: bool = False
    norm_hidden: bool = False
    view: View = View()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images (N, H, W, C) to logits (N, num_classes)."""
        layers, options = self.layers, {"kernel_init": self.layers.kernel_init, "dtype": self.layers.dtype}
        conv = partial(nn.Conv, padding=self.padding, conv_general_dilated=self.convolution, **options)
        x = self.view.of(x, _key(self, train))
        x = layers.normalize(x, train, "norm0") if self.norm_input else x
        for i, features in enumerate(self.channels):
            x = conv(features, (3, 3), use_bias=layers.bias, name=f"conv{i + 1}")(x)
            pool = None if (i + 1) % self.pool_every else max_pool
            x = layers.normalize_and_activate(x, train, f"norm{i + 1}", i, pool)
        bias, count = layers.bias or not self.norm_hidden, len(self.channels)
        x = nn.Dense(self.hidden, use_bias=bias, name="dense", **options)(x.reshape(x.shape[0], -1))
        x = layers.normalize_and_activate(x, train, f"norm{count + 1}", count) if self.norm_hidden else x
        return layers.logits(layers.drop(x, train, "dropout"), self.num_classes)


class MLP(nn.Module):
    """Dense, norm, relu, as often as `hidden` has entries; then the logits.

    Attributes:
        num_classes: logits.
        hidden: features of each hidden layer.
        layers: norm, activation and the like.
        norm_input: normalize the inputs first.
        view: how images are prepared, as for a CNN.

    """

    num_classes: int
    hidden: Sequence[int] = (512, 512)
    layers: LayerOptions = LayerOptions()
    norm_input: bool = False
    view: View = View()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features (N, …) to logits (N, num_classes)."""
        layers, options = self.layers, {"kernel_init": self.layers.kernel_init, "dtype": self.layers.dtype}
        x = self.view.of(x, _key(self, train)).reshape(x.shape[0], -1)
        x = layers.normalize(x, train, "norm0") if self.norm_input else x
        for i, features in enumerate(self.hidden):
            x = nn.Dense(features, use_bias=layers.bias, name=f"dense{i + 1}", **options)(x)
            x = layers.normalize_and_activate(x, train, f"norm{i + 1}", i)
            x = layers.drop(x, train, f"dropout{i + 1}")
        return layers.logits(x, self.num_classes)


def _key(network: CNN | MLP, train: bool) -> jax.Array | None:
    """The key of a training step's random shifts, if there are any."""
    return network.make_rng("shift") if train and network.view.shift else None
