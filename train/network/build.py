"""Building the network of a configuration, and refusing options that do not fit together."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxbn
import jaxbn.linen
from train.config.checks import check_network
from train.config.sections import Config, ModelConfig, NormConfig
from train.host.errors import UsageError
from train.network.convolution import convolution_for
from train.network.models import CNN, MLP, LayerOptions, Norm
from train.network.view import View

MANY_STEPS = 1000  # longer than every schedule of the norm needs
INITIALIZERS = {
    "lecun": nn.initializers.lecun_normal(),
    "he": nn.initializers.he_normal(),
    "glorot": nn.initializers.glorot_uniform(),
}


def build(config: Config, input_shape: tuple[int, ...], num_classes: int, platform: str, total_steps: int) -> CNN | MLP:
    """Build the network of a configuration: by default a CNN for images (H, W, C), otherwise an MLP.

    Raises:
        UsageError: the options do not fit together.

    """
    options, kind = config.model, network_of(config.model, input_shape)
    check_network(options, kind)
    layers = layer_options(config, total_steps)
    view = View(options.deslant == "on", options.crop or 0, options.shift or 0)
    _check_view(view, input_shape)
    if kind == "mlp":
        network = MLP(num_classes, options.hidden or MLP.hidden, layers, options.norm_input, view)
        _check_activations(options, len(network.hidden))
        return network
    channels = options.channels or CNN.channels
    _check_cnn(options, channels, input_shape, view.crop)
    _check_activations(options, len(channels) + options.norm_hidden)
    return CNN(
        num_classes,
        channels,
        options.hidden[0] if options.hidden else CNN.hidden,
        layers,
        convolution_for(platform),
        pool_every=options.pool_every,
        padding=options.padding.upper(),
        norm_input=options.norm_input,
        norm_hidden=options.norm_hidden,
        view=view,
    )


def layer_options(config: Config, total_steps: int) -> LayerOptions:
    """The options that all layers share."""
    options = config.model
    dtype = jnp.bfloat16 if options.precision == "bfloat16" else None
    activations = [getattr(nn, name) for name in options.activation]
    return LayerOptions(
        norm=None if options.norm_placement == "none" else build_norm(config.norm, dtype, total_steps),
        placement="before" if options.norm_placement == "none" else options.norm_placement,
        activation=tuple(activations) if len(activations) > 1 else activations[0],
        dropout=options.dropout,
        kernel_init=INITIALIZERS.get(options.kernel_init) or nn.initializers.normal(options.kernel_std),
        logits_init=INITIALIZERS["glorot"] if options.kernel_init == "he" else None,
        dtype=dtype,
    )


def renorm_ramp(total_steps: int, r_max: float = 3.0, d_max: float = 5.0) -> jaxbn.BatchRenorm:
    """The paper's ramp in fractions of the steps: plain for 5/160, then d until 25/160 and r until 40/160."""
    plain, d_steps, r_steps = (total_steps * share // 160 for share in (5, 25, 40))
    if plain == d_steps:
        raise UsageError(f"--norm-renorm ramp needs a run of 7 steps or more; got {total_steps}")
    return jaxbn.batch_renorm_ramp(plain=plain, r_max=r_max, r_steps=r_steps, d_max=d_max, d_steps=d_steps)


def build_norm(config: NormConfig, dtype: Any, total_steps: int) -> Norm:  # noqa: ANN401
    """The norm of a configuration, for a run of this many steps."""
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
        use_scale=config.norm_scale,
        dtype=dtype,
        unbiased=config.norm_unbiased,
        ghost_batch_size=config.norm_ghost_batch,
        renorm=renorm,
    )


def check_norm(config: NormConfig) -> None:
    """Refuse the norm's options that jaxbn refuses for any data; only shapes are computed.

    Raises:
        UsageError: jaxbn refuses an option.

    """
    rows = jax.ShapeDtypeStruct((2 * (config.norm_ghost_batch or 1), 1), jnp.float32)
    try:
        norm = build_norm(config, None, MANY_STEPS)(use_running_average=False)
        jax.eval_shape(norm.init, jax.random.key(0), rows)
    except ValueError as error:
        raise UsageError(error) from error


def network_of(options: ModelConfig, input_shape: tuple[int, ...]) -> str:
    """The kind of network, "cnn" or "mlp"."""
    if options.network != "auto":
        return options.network
    return "cnn" if len(input_shape) == 3 else "mlp"


def least_side(convolutions: int, pool_every: int = 1, padding: str = "valid") -> int:
    """The smallest side of an image that is not empty after this many convolutions and their poolings.

    Example:
        >>> [least_side(n) for n in range(4)], least_side(4, pool_every=2, padding="same")
        ([1, 4, 10, 22], 4)

    """
    side = 1
    for i in range(convolutions, 0, -1):
        side = (side if i % pool_every else 2 * side) + (2 if padding == "valid" else 0)
    return side


def _check_activations(options: ModelConfig, layers: int) -> None:
    """Raise a UsageError unless there is one activation for all layers, or one for each."""
    if len(options.activation) not in (1, layers):
        raise UsageError(
            f"--activation must be one for all layers, or one for each of the {layers} that are activated; "
            f"got {' '.join(options.activation)}"
        )


def _check_view(view: View, input_shape: tuple[int, ...]) -> None:
    """Raise a UsageError if inputs of this shape cannot be prepared as requested."""
    if len(input_shape) == 3:
        if 2 * view.crop >= min(input_shape[:2]):
            raise UsageError(
                f"--crop must leave a part of images of {input_shape[0]}x{input_shape[1]}, and it takes "
                f"{view.crop} from each of two sides"
            )
        if view.shift >= min(input_shape[:2]):
            raise UsageError(
                f"--shift must leave a part of images of {input_shape[0]}x{input_shape[1]} in place; got {view.shift}"
            )
    elif view != View():
        option = "--deslant on" if view.deslant else "--crop" if view.crop else "--shift"
        raise UsageError(f"{option} needs images, and these inputs are of shape {input_shape}: leave it out")


def _check_cnn(options: ModelConfig, channels: Sequence[int], input_shape: tuple[int, ...], crop: int) -> None:
    """Raise a UsageError if inputs of this shape are no images, or too small for the CNN."""
    if len(input_shape) != 3:
        raise UsageError(f"--network cnn needs images, and these inputs are of shape {input_shape}: choose mlp")
    height, width = (side - 2 * crop for side in input_shape[:2])
    if least_side(len(channels), options.pool_every, options.padding) > min(height, width):
        less = "" if options.padding == "same" else "each convolution takes 2 from each side, and "
        left = " (after --crop)" if crop else ""
        raise UsageError(
            f"--channels has {len(channels)} entries, too many for images of {height}x{width}{left}: "
            f"{less}each pooling halves it"
        )
