"""The operations of a network in the order in which they are applied: its layers, activations and poolings."""

import re
from collections.abc import Iterable

from train.config.sections import ModelConfig
from train.network.summary import Layer

POOLING = "2×2 max pooling"


def operations(model: ModelConfig, layers: Iterable[Layer], input_shape: tuple[int, ...]) -> list[Layer]:
    """A row for every operation of a network.

    A norm computes the activation and the pooling that follow it, so its own summary shows the shape behind all three.
    Here each has a row, and a norm has the shape of what it normalizes.

    Args:
        model: the options that the network was built from.
        layers: its summary, in the order in which the layers are called.
        input_shape: of one example.

    Example:
        >>> layers = [Layer("conv1", "Conv", (26, 26, 32), 288, 0), Layer("norm1", "BatchNorm", (13, 13, 32), 64, 64)]
        >>> [(each.kind, each.output_shape[0]) for each in operations(ModelConfig(), layers, (28, 28, 1))]
        [('Conv', 26), ('BatchNorm', 26), ('relu', 26), ('2×2 max pooling', 13)]

    """
    layers = list(layers)
    norms = {layer.name: layer for layer in layers if re.fullmatch(r"norm[1-9]\d*", layer.name)}
    last_convolution = max((int(layer.name[4:]) for layer in layers if layer.name.startswith("conv")), default=0)
    rows, activated = _preparation(model, input_shape), 0
    for layer in layers:
        if layer.name in norms:
            continue  # comes with the layer that it normalizes
        rows.append(layer)
        kind, number = layer.name.rstrip("0123456789"), layer.name.lstrip("abcdefghijklmnopqrstuvwxyz")
        if kind not in ("conv", "dense") or (layer.name == "dense" and not model.norm_hidden):
            continue
        activation = Layer("", model.activation[activated % len(model.activation)], layer.output_shape, 0, 0)
        activated += 1
        norm = norms.get(f"norm{number or last_convolution + 1}")
        if norm is None:
            rows.append(activation)
        else:
            norm = norm._replace(output_shape=layer.output_shape)
            rows += [activation, norm] if model.norm_placement == "after" else [norm, activation]
        if kind == "conv" and int(number) % model.pool_every == 0:
            height, width, channels = layer.output_shape
            pooling = Layer("", POOLING, (height // 2, width // 2, channels), 0, 0)
            if model.norm_placement == "pooled":
                rows[-2:] = [pooling, *(row._replace(output_shape=pooling.output_shape) for row in rows[-2:])]
            else:
                rows.append(pooling)
    return rows


def _preparation(model: ModelConfig, input_shape: tuple[int, ...]) -> list[Layer]:
    """The rows of the operations on images before the first layer."""
    rows = []
    if model.deslant == "on":
        rows.append(Layer("", "deslanting", input_shape, 0, 0))
    if model.shift:
        rows.append(Layer("", "random shift", input_shape, 0, 0))
    if model.crop:
        height, width, channels = input_shape
        rows.append(Layer("", "cropping", (height - 2 * model.crop, width - 2 * model.crop, channels), 0, 0))
    return rows
