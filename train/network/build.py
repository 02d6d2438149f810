"""From a configuration to its network; what does not fit together is refused here."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

import jaxbn
import jaxbn.linen
from train.config.sections import Config, ModelConfig, NormConfig
from train.network.convolution import convolution_for
from train.network.models import CNN, MLP, Norm, Style

WIDEST = 1_000_000  # features of a layer: a thousand times those of usual networks
INITIALIZERS = {
    "lecun": nn.initializers.lecun_normal(),
    "he": nn.initializers.he_normal(),
    "glorot": nn.initializers.glorot_uniform(),
}


def build(config: Config, input_shape: tuple[int, ...], num_classes: int, platform: str, total_steps: int) -> CNN | MLP:
    """The network of a configuration for inputs of a shape: by itself a CNN for images (H, W, C), else an MLP.

    Raises:
        ValueError: the options do not make a network.

    """
    options = config.model
    _check(options)
    style = build_style(config, total_steps)
    if network_of(options, input_shape) == "mlp":
        _check_mlp(options)
        network = MLP(num_classes, options.hidden or MLP.hidden, style, options.norm_input)
        _check_activations(options, len(network.hidden))
        return network
    channels, hidden = options.channels or CNN.channels, options.hidden or (CNN.hidden,)
    _check_cnn(options, channels, hidden, input_shape)
    _check_activations(options, len(channels) + options.norm_hidden)
    return CNN(
        num_classes,
        channels,
        hidden[0],
        style,
        convolution_for(platform),
        pool_every=options.pool_every,
        padding=options.padding.upper(),
        norm_input=options.norm_input,
        norm_hidden=options.norm_hidden,
    )


def build_style(config: Config, total_steps: int) -> Style:
    """What the layers have in common."""
    options = config.model
    dtype = jnp.bfloat16 if options.precision == "bfloat16" else None
    activations = [getattr(nn, name) for name in options.activation]
    return Style(
        norm=None if options.norm_placement == "none" else build_norm(config.norm, dtype, total_steps),
        after=options.norm_placement == "after",
        activation=tuple(activations) if len(activations) > 1 else activations[0],
        dropout=options.dropout,
        kernel_init=INITIALIZERS.get(options.kernel_init) or nn.initializers.normal(options.kernel_std),
        logits_init=INITIALIZERS["glorot"] if options.kernel_init == "he" else None,
        dtype=dtype,
    )


def renorm_ramp(total_steps: int, r_max: float = 3.0, d_max: float = 5.0) -> jaxbn.BatchRenorm:
    """The paper's ramp in shares of a training: plain for 5/160, d until 25/160, r until 40/160."""
    plain, d_steps, r_steps = (total_steps * share // 160 for share in (5, 25, 40))
    if plain == d_steps:
        raise ValueError(f"--norm-renorm ramp needs a run of 7 steps or more; got {total_steps}")
    return jaxbn.batch_renorm_ramp(plain=plain, r_max=r_max, r_steps=r_steps, d_max=d_max, d_steps=d_steps)


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
    elif config.norm_renorm == "ramp":
        renorm = renorm_ramp(total_steps, config.norm_r_max, config.norm_d_max)
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


def least_side(convolutions: int, pool_every: int = 1, padding: str = "valid") -> int:
    """The smallest side of an image that leaves something after so many convolutions and the poolings among them.

    Example:
        >>> [least_side(n) for n in range(4)], least_side(4, pool_every=2, padding="same")
        ([1, 4, 10, 22], 4)

    """
    side = 1
    for i in range(convolutions, 0, -1):
        side = (side if i % pool_every else 2 * side) + (2 if padding == "valid" else 0)
    return side


def _check(options: ModelConfig) -> None:
    """Raises where a number is out of its range."""
    if not 0 <= options.dropout < 1:
        raise ValueError(f"--dropout must be at least 0 and below 1; got {options.dropout:g}")
    if not (options.kernel_std >= 0 and math.isfinite(options.kernel_std)):
        raise ValueError(f"--kernel-std must be at least 0 and finite; got {options.kernel_std:g}")
    if options.pool_every < 1:
        raise ValueError(f"--pool-every must be at least 1; got {options.pool_every}")
    if not options.activation:
        raise ValueError("--activation must name at least one")
    for name, widths in (("channels", options.channels), ("hidden", options.hidden)):
        if widths is not None and (not widths or min(widths) < 1):
            raise ValueError(f"--{name} must be numbers of at least 1; got {' '.join(map(str, widths)) or 'none'}")
        if widths is not None and max(widths) > WIDEST:
            raise ValueError(f"--{name} must be numbers of at most {WIDEST:,}; got {max(widths)}")


def _check_activations(options: ModelConfig, layers: int) -> None:
    """Raises where there is neither one activation for all layers nor one for each."""
    if len(options.activation) not in (1, layers):
        raise ValueError(
            f"--activation must be one for all layers, or one for each of the {layers} that are activated; "
            f"got {' '.join(options.activation)}"
        )


def _check_mlp(options: ModelConfig) -> None:
    """Raises where an option is of a CNN."""
    if options.channels is not None:
        raise ValueError("--channels are of a cnn, and this is an mlp: leave them out, or choose --network cnn")
    for name in ("pool_every", "padding", "norm_hidden"):
        if getattr(options, name) != getattr(ModelConfig, name):
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is of a cnn, and this is an mlp: leave it out, or choose --network cnn")


def _check_cnn(
    options: ModelConfig, channels: Sequence[int], hidden: Sequence[int], input_shape: tuple[int, ...]
) -> None:
    """Raises where there is no such CNN for inputs of this shape."""
    if len(input_shape) != 3:
        raise ValueError(f"--network cnn needs images, and these inputs are of shape {input_shape}: choose mlp")
    if len(hidden) != 1:
        raise ValueError(f"--hidden of a cnn is one number, as in --hidden 256; got {' '.join(map(str, hidden))}")
    if least_side(len(channels), options.pool_every, options.padding) > min(input_shape[:2]):
        less = "" if options.padding == "same" else "each convolution takes 2 from each side, and "
        raise ValueError(
            f"--channels has {len(channels)} entries, too many for images of {input_shape[0]}x{input_shape[1]}: "
            f"{less}each pooling halves it"
        )
