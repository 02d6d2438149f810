"""The networks, with the norm and the convolution injected."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

import jaxbn
import jaxbn.linen
from train.config import Config, ModelConfig, NormConfig
from train.convolution import Convolution, convolution_for

Norm = Callable[..., nn.Module]

LECUN = nn.initializers.lecun_normal()
INITIALIZERS = {
    "lecun": LECUN,
    "he": nn.initializers.he_normal(),
    "glorot": nn.initializers.glorot_uniform(),
}


@dataclasses.dataclass(frozen=True)
class Style:
    """What the layers of a network have in common.

    Attributes:
        norm: makes a norm module, called with (name, use_running_average); None for no norm.
        after: the norm follows the activation instead of preceding it.
        activation: applied to an array.
        dropout: share of the hidden features that is set to 0 in training.
        kernel_init: Flax's initializer of all kernels.
        dtype: what is computed in; None: what the inputs and parameters give.

    """

    norm: Norm | None = jaxbn.linen.BatchNorm
    after: bool = False
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = LECUN
    dtype: Any = None

    @property
    def bias(self) -> bool:
        """Whether the layer in front has a bias; before a norm not, which would subtract it again."""
        return self.norm is None or self.after

    def normalize_and_activate(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        """Norm and activation in their order."""
        for layer in ("activation", "norm") if self.after else ("norm", "activation"):
            if layer == "activation":
                x = self.activation(x)
            elif self.norm is not None:
                x = self.norm(use_running_average=not train, name=name)(x)
        return x

    def drop(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        """Dropout, where there is any."""
        return nn.Dropout(self.dropout, deterministic=not train, name=name)(x) if self.dropout else x


class CNN(nn.Module):
    """Convolution 3×3, norm, relu, max pool 2×2, for each entry of `channels`; then a hidden layer and the logits.

    Attributes:
        num_classes: logits.
        channels: features of each convolution.
        hidden: features of the dense layer before the logits; it has no activation, as in the Keras original.
        style: norm, activation and the like.
        convolution: what `flax.linen.Conv` calls; choose by platform with `convolution_for`.

    """

    num_classes: int
    channels: Sequence[int] = (32, 64)
    hidden: int = 256
    style: Style = Style()
    convolution: Convolution = lax.conv_general_dilated

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images (N, H, W, C) to logits (N, num_classes)."""
        style, options = self.style, {"kernel_init": self.style.kernel_init, "dtype": self.style.dtype}
        conv = partial(nn.Conv, padding="VALID", conv_general_dilated=self.convolution, use_bias=style.bias, **options)
        for i, features in enumerate(self.channels, 1):
            x = conv(features, (3, 3), name=f"conv{i}")(x)
            x = max_pool(style.normalize_and_activate(x, train, f"norm{i}"))
        x = x.reshape(x.shape[0], -1)
        x = style.drop(nn.Dense(self.hidden, name="dense", **options)(x), train, "dropout")
        return nn.Dense(self.num_classes, name="logits", **options)(x)


class MLP(nn.Module):
    """Dense, norm, relu, as often as `hidden` has entries; then the logits.

    Attributes:
        num_classes: logits.
        hidden: features of each hidden layer.
        style: norm, activation and the like.

    """

    num_classes: int
    hidden: Sequence[int] = (512, 512)
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features (N, …) to logits (N, num_classes)."""
        style, options = self.style, {"kernel_init": self.style.kernel_init, "dtype": self.style.dtype}
        x = x.reshape(x.shape[0], -1)
        for i, features in enumerate(self.hidden, 1):
            x = nn.Dense(features, use_bias=style.bias, name=f"dense{i}", **options)(x)
            x = style.drop(style.normalize_and_activate(x, train, f"norm{i}"), train, f"dropout{i}")
        return nn.Dense(self.num_classes, name="logits", **options)(x)


@jax.custom_jvp
def max_pool(x: jax.Array) -> jax.Array:
    """2×2 maxima of NHWC images, as maxima of slices; a tie's derivative is that of its first entry.

    On CPU faster than `flax.linen.max_pool`, whose gradient is a scatter; elsewhere it fuses with its neighbours.

    Example:
        >>> import jax.numpy as jnp
        >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1)).reshape(2, 2).tolist()
        [[5.0, 7.0], [13.0, 15.0]]

    """
    windows = _windows(x)
    rows = jnp.maximum(windows[:, :, 0], windows[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


@max_pool.defjvp
def _max_pool_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The tangent of each window's maximum, picked by its position: the transpose is one sweep that reads no x."""
    windows = _windows(*primals)
    a, b, c, d = (windows[:, :, i, :, j] for i in (0, 1) for j in (0, 1))
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    first = jnp.where(bottom > top, jnp.where(d > c, 3, 2), jnp.where(b > a, 1, 0))
    position = lax.broadcasted_iota(jnp.int32, (2, 1, 2, 1), 0) * 2 + lax.broadcasted_iota(jnp.int32, (2, 1, 2, 1), 2)
    picked = jnp.where(first[:, :, None, :, None] == position, _windows(*tangents), 0)
    return jnp.maximum(top, bottom), picked.sum(axis=(2, 4))


def _windows(x: jax.Array) -> jax.Array:
    """The 2×2 windows of NHWC images, (N, H/2, 2, W/2, 2, C); an odd row or column is left out."""
    n, height, width, channels = x.shape
    return x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)


def build(config: Config, input_shape: tuple[int, ...], num_classes: int, platform: str, total_steps: int) -> CNN | MLP:
    """The network of a configuration for inputs of a shape: by itself a CNN for images (H, W, C), else an MLP.

    Raises:
        ValueError: the options do not make a network.

    """
    options = config.model
    _check(options)
    dtype = jnp.bfloat16 if options.precision == "bfloat16" else None
    style = Style(
        norm=None if options.norm_placement == "none" else build_norm(config.norm, dtype, total_steps),
        after=options.norm_placement == "after",
        activation=getattr(nn, options.activation),
        dropout=options.dropout,
        kernel_init=INITIALIZERS.get(options.kernel_init) or nn.initializers.normal(options.kernel_std),
        dtype=dtype,
    )
    if network_of(options, input_shape) == "mlp":
        if options.channels is not None:
            raise ValueError("--channels are of a cnn, and this is an mlp: leave them out, or choose --network cnn")
        return MLP(num_classes, options.hidden or MLP.hidden, style)
    channels, hidden = options.channels or CNN.channels, options.hidden or (CNN.hidden,)
    if len(input_shape) != 3:
        raise ValueError(f"--network cnn needs images, and these inputs are of shape {input_shape}: choose mlp")
    if len(hidden) != 1:
        raise ValueError(f"--hidden of a cnn is one number, as in --hidden 256; got {' '.join(map(str, hidden))}")
    if least_side(len(channels)) > min(input_shape[:2]):
        raise ValueError(
            f"--channels has {len(channels)} entries, too many for images of {input_shape[0]}x{input_shape[1]}: "
            "each convolution takes 2 from each side and halves it"
        )
    return CNN(num_classes, channels, hidden[0], style, convolution_for(platform))


def build_norm(config: NormConfig, dtype: Any, total_steps: int) -> Norm:  # noqa: ANN401
    """The norm of a configuration, for a run of so many steps."""
    momentum = {
        "constant": lambda: config.norm_momentum,
        "cumulative": jaxbn.cumulative,
        "debiased": lambda: jaxbn.debiased(config.norm_momentum),
    }[config.norm_average]()
    renorm = None
    if config.norm_renorm == "constant":
        renorm = jaxbn.BatchRenorm(config.norm_r_max, config.norm_d_max)
    elif config.norm_renorm == "ramp":  # in the paper 5, 25 and 40 of 160 thousand steps
        plain, d_steps, r_steps = (total_steps * share // 160 for share in (5, 25, 40))
        if plain == d_steps:
            raise ValueError(f"--norm-renorm ramp needs a run of 7 steps or more; got {total_steps}")
        bounds = {"r_max": config.norm_r_max, "d_max": config.norm_d_max}
        renorm = jaxbn.batch_renorm_ramp(plain=plain, r_steps=r_steps, d_steps=d_steps, **bounds)
    return partial(
        jaxbn.linen.BatchNorm,
        momentum=momentum,
        epsilon=config.norm_epsilon,
        dtype=dtype,
        unbiased=config.norm_unbiased,
        ghost_batch_size=config.norm_ghost_batch,
        renorm=renorm,
    )


def network_of(options: ModelConfig, input_shape: tuple[int, ...]) -> str:
    """Which network it is: "cnn" or "mlp"."""
    if options.network != "auto":
        return options.network
    return "cnn" if len(input_shape) == 3 else "mlp"


def least_side(convolutions: int) -> int:
    """The smallest side of an image that leaves something after so many convolutions and poolings.

    Example:
        >>> [least_side(n) for n in range(4)]
        [1, 4, 10, 22]

    """
    return 1 if convolutions == 0 else 2 * least_side(convolutions - 1) + 2


def _check(options: ModelConfig) -> None:
    """Raises where a number is out of its range."""
    if not 0 <= options.dropout < 1:
        raise ValueError(f"--dropout must be at least 0 and below 1; got {options.dropout:g}")
    if not (options.kernel_std >= 0 and math.isfinite(options.kernel_std)):
        raise ValueError(f"--kernel-std must be at least 0 and finite; got {options.kernel_std:g}")
    for name, widths in (("channels", options.channels), ("hidden", options.hidden)):
        if widths is not None and (not widths or min(widths) < 1):
            raise ValueError(f"--{name} must be numbers of at least 1; got {' '.join(map(str, widths)) or 'none'}")
