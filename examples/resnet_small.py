"""A ResNet for images of 32 by 32 pixels, as in CIFAR-10: Linen and NNX, where the norm adds the residual.

    python examples/resnet_small.py

The second norm of a block takes the shortcut as `residual=`, which it adds in front of its activation: one fused
operation. With the widths for CIFAR-10 it is the network of He et al. 2015, section 4.2; here it is smaller.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxbn.linen
import jaxbn.nnx

WIDTHS, CLASSES, MOMENTUM = (8, 16), 2, 0.8  # for CIFAR-10: (16, 32, 64), 10, 0.9


class LinenResNet(nn.Module):
    """One stage per width; `blocks` = 3 is ResNet-20, 9 is ResNet-56."""

    blocks: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """The logits."""
        norm = partial(jaxbn.linen.BatchNorm, not train, momentum=MOMENTUM)
        conv = partial(nn.Conv, kernel_size=(3, 3), use_bias=False)
        x = norm(activation="relu")(conv(WIDTHS[0])(x))
        for stage, width in enumerate(WIDTHS):
            for block in range(self.blocks):
                stride = 2 if stage and not block else 1
                y = norm(activation="relu")(conv(width, strides=stride)(x))
                if x.shape[-1] != width:
                    x = norm()(conv(width, kernel_size=(1, 1), strides=stride)(x))
                x = norm(activation="relu")(conv(width)(y), residual=x)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class NNXBlock(nnx.Module):
    """Two convolutions with norms, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        conv = partial(nnx.Conv, kernel_size=(3, 3), use_bias=False, rngs=rngs)
        norm = partial(jaxbn.nnx.BatchNorm, width, momentum=MOMENTUM, rngs=rngs)
        self.conv1, self.norm1 = conv(inputs, width, strides=stride), norm(activation="relu")
        self.conv2, self.norm2 = conv(width, width), norm(activation="relu")
        self.shortcut = nnx.data(None)
        if inputs != width:
            self.shortcut = nnx.Sequential(conv(inputs, width, kernel_size=(1, 1), strides=stride), norm())

    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds in front of the second activation."""
        y = self.norm1(self.conv1(x))
        return self.norm2(self.conv2(y), residual=self.shortcut(x) if self.shortcut else x)


class NNXResNet(nnx.Module):
    """The same network."""

    def __init__(self, rngs: nnx.Rngs, blocks: int = 1) -> None:
        self.conv = nnx.Conv(3, WIDTHS[0], (3, 3), use_bias=False, rngs=rngs)
        self.norm = jaxbn.nnx.BatchNorm(WIDTHS[0], momentum=MOMENTUM, activation="relu", rngs=rngs)
        inputs = [WIDTHS[0], *(width for width in WIDTHS for _ in range(blocks))]
        strides = [2 if stage and not block else 1 for stage in range(len(WIDTHS)) for block in range(blocks)]
        shapes = zip(inputs, inputs[1:], strides, strict=False)
        self.blocks = nnx.Sequential(*(NNXBlock(*shape, rngs=rngs) for shape in shapes))
        self.head = nnx.Linear(WIDTHS[-1], CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The logits."""
        return self.head(self.blocks(self.norm(self.conv(x))).mean((1, 2)))


def main() -> None:
    """Train both networks on vertical and horizontal stripes, and evaluate them with the running statistics."""
    rows, labels = jnp.arange(16), jnp.arange(16) % CLASSES
    stripes = jnp.broadcast_to(jnp.sin(jnp.arange(16) + rows[:, None])[:, :, None, None], (16, 16, 16, 3))
    images = jnp.where(labels[:, None, None, None], stripes, stripes.swapaxes(1, 2))
    optimizer = optax.sgd(0.05, momentum=0.9)

    def cross_entropy(logits: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def linen_step(variables: Any, opt_state: Any) -> Any:  # noqa: ANN401
        def loss(params: Any) -> Any:  # noqa: ANN401
            logits, updates = LinenResNet().apply(variables | {"params": params}, images, True, mutable=["batch_stats"])
            return cross_entropy(logits), updates

        gradients, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(gradients, opt_state)
        return {"params": optax.apply_updates(variables["params"], updates)} | statistics, opt_state

    @nnx.jit
    def nnx_step(model: NNXResNet, state: nnx.Optimizer) -> None:
        state.update(model, nnx.grad(lambda model: cross_entropy(model(images)))(model))

    variables: Any = jax.jit(lambda: LinenResNet().init(jax.random.key(0), images, train=False))()
    model, opt_state = NNXResNet(nnx.Rngs(0)), optimizer.init(variables["params"])
    state = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
    for _ in range(12):
        variables, opt_state = linen_step(variables, opt_state)
        nnx_step(model, state)
    model.eval()
    outputs: Any = {"Linen": LinenResNet().apply(variables, images, train=False), "NNX": model(images)}
    for name, logits in outputs.items():
        accuracy = float((logits.argmax(1) == labels).mean())
        print(f"{name}: {accuracy:.0%} of the images are right in evaluation")
        assert accuracy > 0.9


if __name__ == "__main__":
    main()
