"""A whole network from PyTorch to Flax: a ResNet-18's state dict, named as torchvision names it, as Linen's variables.

    pip install torch
    python examples/resnet18_from_torch.py

`variables_from` is all that the conversion takes. It goes by names: a layer with a running mean is a norm, any other
weight is a kernel. The Linen network has the same names, with "_" for the dots.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import torch
from flax.traverse_util import unflatten_dict

from jaxbn import interop
from jaxbn.linen import BatchNorm

WIDTHS, BLOCKS = (64, 128, 256, 512), 2


def variables_from(entries: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The variables of `ResNet18` from the state dict of torchvision's `resnet18`."""
    found: dict[tuple[str, ...], Any] = {}
    for name in (n.rpartition(".")[0] for n in entries if n.endswith(".weight")):
        path = _path(name)
        if f"{name}.running_mean" in entries:
            params, state, _ = interop.from_torch(entries, name)
            found |= {("params", *path, key): value for key, value in params._asdict().items()}
            found |= {("batch_stats", *path, key): getattr(state, key) for key in ("mean", "var")}
        else:
            found["params", *path, "kernel"] = interop.kernel_from_torch(entries[f"{name}.weight"])
            if f"{name}.bias" in entries:
                found["params", *path, "bias"] = entries[f"{name}.bias"].numpy()
    return unflatten_dict(found)


def _path(name: str) -> tuple[str, ...]:
    """layer1.0.downsample.1 → layer1_0, downsample_1."""
    parts = name.split(".")
    return ("_".join(parts[:2]), "_".join(parts[2:])) if len(parts) > 1 else (name,)


class Block(nn.Module):
    """Two convolutions with norms, and a way round them."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Adds before the second activation."""
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9)
        conv = partial(nn.Conv, self.width, (3, 3), padding=1, use_bias=False)
        y = norm(name="bn1", activation="relu")(conv(strides=self.stride, name="conv1")(x))
        if x.shape[-1] != self.width:
            x = nn.Conv(self.width, (1, 1), self.stride, use_bias=False, name="downsample_0")(x)
            x = norm(name="downsample_1")(x)
        return norm(name="bn2", activation="relu")(conv(name="conv2")(y), residual=x)


class ResNet18(nn.Module):
    """He et al. 2015, as torchvision has it; images with channels last."""

    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """The logits of a batch of images."""
        x = nn.Conv(WIDTHS[0], (7, 7), 2, padding=3, use_bias=False, name="conv1")(x)
        pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        x = BatchNorm(use_running_average=not train, momentum=0.9, activation="relu", max_pool=pool, name="bn1")(x)
        for stage, width in enumerate(WIDTHS):
            for block in range(BLOCKS):
                x = Block(width, stride=2 if stage and not block else 1, name=f"layer{stage + 1}_{block}")(x, train)
        return nn.Dense(self.classes, name="fc")(x.mean((1, 2)))


class TorchBlock(torch.nn.Module):
    """torchvision's BasicBlock."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """Makes the layers."""
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)
        shortcut = torch.nn.Conv2d(inputs, width, 1, stride, bias=False), torch.nn.BatchNorm2d(width)
        self.downsample = torch.nn.Sequential(*(shortcut if inputs != width else ()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds before the second activation."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


def torch_resnet18(classes: int = 1000) -> torch.nn.Module:
    """The layers and the names of torchvision's `resnet18`, with random weights."""
    network = torch.nn.Sequential()
    network.add_module("conv1", torch.nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False))
    network.add_module("bn1", torch.nn.BatchNorm2d(WIDTHS[0]))
    network.add_module("relu", torch.nn.ReLU())
    network.add_module("maxpool", torch.nn.MaxPool2d(3, 2, 1))
    for stage, width in enumerate(WIDTHS):
        inputs = WIDTHS[max(stage - 1, 0)]
        blocks = [TorchBlock(inputs if b == 0 else width, width, 2 if stage and b == 0 else 1) for b in range(BLOCKS)]
        network.add_module(f"layer{stage + 1}", torch.nn.Sequential(*blocks))
    network.add_module("avgpool", torch.nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", torch.nn.Flatten())
    network.add_module("fc", torch.nn.Linear(WIDTHS[-1], classes))
    return network


def main() -> float:
    """The largest difference of the logits, relative to the largest logit."""
    torch.manual_seed(0)
    network = torch_resnet18(classes=10)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        network.train()(images)  # the running statistics move
        expected = network.eval()(images).numpy()
    logits = ResNet18(classes=10).apply(
        variables_from(network.state_dict()), images.numpy().transpose(0, 2, 3, 1), False
    )
    return float(np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    print(f"largest difference from PyTorch, relative: {main():.1e}")
