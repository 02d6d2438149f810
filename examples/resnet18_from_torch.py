"""A whole network from PyTorch to Flax: a ResNet-18's state dict, named as torchvision names it, as Linen's variables.

    pip install torch
    python examples/resnet18_from_torch.py

`variables_from` is the whole conversion. A layer with a running mean is a norm; every other weight is a kernel. The
Linen network has the same names, with "_" in place of dots.
"""

from collections import OrderedDict
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
POOLING: dict[str, Any] = {"window_shape": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}


def variables_from(entries: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The variables of `ResNet18` from the state dict of torchvision's `resnet18`."""
    found: dict[tuple[str, ...], Any] = {}
    for name in (n.rpartition(".")[0] for n in entries if n.endswith(".weight")):
        parts = name.split(".")  # layer1.0.downsample.1 → layer1_0, downsample_1
        path = ("_".join(parts[:2]), "_".join(parts[2:])) if len(parts) > 1 else (name,)
        if f"{name}.running_mean" in entries:
            params, state, _ = interop.from_torch(entries, name)
            found |= {("params", *path, key): value for key, value in params._asdict().items()}
            found |= {("batch_stats", *path, key): getattr(state, key) for key in ("mean", "var")}
        else:
            found["params", *path, "kernel"] = interop.kernel_from_torch(entries[f"{name}.weight"])
    found["params", "fc", "bias"] = entries["fc.bias"].numpy()  # the only layer with a bias, norms excluded
    return unflatten_dict(found)


class Block(nn.Module):
    """Two convolutions with norms, and a shortcut."""

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
    """The ResNet-18 of He et al. 2015, as in torchvision, for images with channels last."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """The logits of a batch of images."""
        x = nn.Conv(WIDTHS[0], (7, 7), 2, padding=3, use_bias=False, name="conv1")(x)
        pool = partial(nn.max_pool, **POOLING)
        x = BatchNorm(use_running_average=not train, momentum=0.9, activation="relu", max_pool=pool, name="bn1")(x)
        for stage, width in enumerate(WIDTHS):
            for block in range(BLOCKS):
                x = Block(width, stride=2 if stage and not block else 1, name=f"layer{stage + 1}_{block}")(x, train)
        return nn.Dense(self.classes, name="fc")(x.mean((1, 2)))


class TorchBlock(torch.nn.Module):
    """torchvision's BasicBlock."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)
        shortcut = torch.nn.Conv2d(inputs, width, 1, stride, bias=False), torch.nn.BatchNorm2d(width)
        self.downsample = torch.nn.Sequential(*(shortcut if inputs != width else ()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds before the second activation."""
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.downsample(x)).relu()


def torch_resnet18(classes: int) -> torch.nn.Module:
    """The layers and the names of torchvision's `resnet18`, with random weights."""
    layers: dict[str, torch.nn.Module] = {"conv1": torch.nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False)}
    layers |= {"bn1": torch.nn.BatchNorm2d(WIDTHS[0]), "relu": torch.nn.ReLU(), "maxpool": torch.nn.MaxPool2d(3, 2, 1)}
    for stage, (inputs, width) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)):
        blocks = [TorchBlock(inputs if b == 0 else width, width, 2 if stage and b == 0 else 1) for b in range(BLOCKS)]
        layers[f"layer{stage + 1}"] = torch.nn.Sequential(*blocks)
    layers |= {"pool": torch.nn.AdaptiveAvgPool2d(1), "flat": torch.nn.Flatten(), "fc": torch.nn.Linear(512, classes)}
    return torch.nn.Sequential(OrderedDict(layers))


def main() -> None:
    """The logits of both networks agree to rounding."""
    torch.manual_seed(0)
    network, images = torch_resnet18(classes=10), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        network.train()(images)  # updates the running statistics
        expected = network.eval()(images).numpy()
    logits = ResNet18(10).apply(variables_from(network.state_dict()), images.numpy().transpose(0, 2, 3, 1), False)
    difference = np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max()
    assert difference < 1e-5
    print(f"largest difference from PyTorch, relative: {difference:.1e}")


if __name__ == "__main__":
    main()
