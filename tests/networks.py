"""Networks with the layers of well-known ones but few channels, such as a ResNet-50 with its 53 norms."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

BLOCKS = (3, 4, 6, 3)  # of a ResNet-50, by stage
Norm = Callable[..., Any]


def drawn(variables: Any, seed: int = 0) -> Any:
    """Random variables of these shapes, made without compilation; some scales are negative."""
    random = np.random.default_rng(seed)

    def leaf(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name, shape = jax.tree_util.keystr(path), leaf.shape
        if "'var'" in name or "var_ema" in name:
            array = random.uniform(0.5, 2, shape)
        elif "'scale'" in name:
            array = random.uniform(0.5, 1.5, shape) * random.choice([-1, 1], shape)
        else:
            array = random.normal(0, 0.3 if len(shape) == 1 else np.prod(shape[:-1]) ** -0.5, shape)
        return jnp.asarray(array, leaf.dtype)

    return jax.tree_util.tree_map_with_path(leaf, variables)


def of_linen(model: nn.Module, x: jax.Array, **options: Any) -> Callable[..., Any]:
    """The function of a Linen model with random variables."""
    shapes = jax.eval_shape(partial(model.init, **options), jax.random.key(0), x)
    return partial(model.apply, drawn(shapes), **options)


def of_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Any:
    """An NNX model with random variables, in evaluation."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), ...)
    model = nnx.merge(graph, drawn(shapes))
    model.eval()
    return model


class LinenBottleneck(nn.Module):
    norm: Norm
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        conv: Any = partial(nn.Conv, use_bias=False)
        y = nn.relu(self.norm()(conv(self.features, (1, 1))(x)))
        y = nn.relu(self.norm()(conv(self.features, (3, 3), self.stride)(y)))
        y = self.norm()(conv(4 * self.features, (1, 1))(y))
        if x.shape != y.shape:
            x = self.norm(name="norm_proj")(conv(4 * self.features, (1, 1), self.stride, name="conv_proj")(x))
        return nn.relu(x + y)


class LinenResNet50(nn.Module):
    norm: Norm
    width: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.relu(self.norm(name="bn_init")(nn.Conv(self.width, (7, 7), 2, use_bias=False, name="conv_init")(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, blocks in enumerate(BLOCKS):
            for block in range(blocks):
                x = LinenBottleneck(self.norm, self.width * 2**stage, 2 if stage and not block else 1)(x)
        return nn.Dense(4)(x.mean((1, 2)))


class NNXBottleneck(nnx.Module):
    def __init__(self, norm: Norm, inputs: int, features: int, stride: int, rngs: nnx.Rngs):
        conv: Any = partial(nnx.Conv, use_bias=False, rngs=rngs)
        self.conv1, self.norm1 = conv(inputs, features, (1, 1)), norm(features)
        self.conv2, self.norm2 = conv(features, features, (3, 3), stride), norm(features)
        self.conv3, self.norm3 = conv(features, 4 * features, (1, 1)), norm(4 * features)
        if inputs != 4 * features or stride != 1:
            self.conv_proj, self.norm_proj = conv(inputs, 4 * features, (1, 1), stride), norm(4 * features)

    def __call__(self, x):
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm3(self.conv3(nnx.relu(self.norm2(self.conv2(y)))))
        return nnx.relu((self.norm_proj(self.conv_proj(x)) if hasattr(self, "conv_proj") else x) + y)


class NNXResNet50(nnx.Module):
    def __init__(self, norm: Norm, rngs: nnx.Rngs, width: int = 2):
        norm, inputs, blocks = partial(norm, rngs=rngs), width, []
        self.conv_init, self.bn_init = nnx.Conv(3, width, (7, 7), 2, use_bias=False, rngs=rngs), norm(width)
        for stage, count in enumerate(BLOCKS):
            for block in range(count):
                features = width * 2**stage
                blocks.append(NNXBottleneck(norm, inputs, features, 2 if stage and not block else 1, rngs))
                inputs = 4 * features
        self.blocks, self.head = nnx.List(blocks), nnx.Linear(inputs, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.bn_init(self.conv_init(x))), (3, 3), (2, 2), "SAME")
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class DenseNet(nn.Module):
    """Norm, relu, convolution, twice in each layer, whose result joins its inputs; a transition between blocks."""

    norm: Norm
    layers: Sequence[int] = (2, 2)
    growth: int = 4

    @nn.compact
    def __call__(self, x):
        conv: Any = partial(nn.Conv, use_bias=False)
        x = nn.relu(self.norm()(conv(8, (3, 3))(x)))
        for number, layers in enumerate(self.layers):
            for _ in range(layers):
                y = conv(4 * self.growth, (1, 1))(nn.relu(self.norm()(x)))
                y = conv(self.growth, (3, 3))(nn.relu(self.norm()(y)))
                x = jnp.concatenate([x, y], -1)
            if number + 1 < len(self.layers):
                x = nn.avg_pool(conv(x.shape[-1] // 2, (1, 1))(nn.relu(self.norm()(x))), (2, 2), (2, 2))
        return nn.Dense(4)(nn.relu(self.norm()(x)).mean((1, 2)))


class MobileNet(nn.Module):
    """Inverted residuals: 1×1, depthwise 3×3, 1×1, each with a norm, and no activation behind the last."""

    norm: Norm

    @nn.compact
    def __call__(self, x):
        conv: Any = partial(nn.Conv, use_bias=False)
        x = nn.relu6(self.norm()(conv(4, (3, 3), 2)(x)))
        for features, stride in ((4, 1), (6, 2), (6, 1)):
            hidden = 3 * x.shape[-1]
            y = nn.relu6(self.norm()(conv(hidden, (1, 1))(x)))
            y = nn.relu6(self.norm()(conv(hidden, (3, 3), stride, feature_group_count=hidden)(y)))
            y = self.norm()(conv(features, (1, 1))(y))
            x = x + y if x.shape == y.shape else y
        return nn.Dense(4)(nn.relu6(self.norm()(conv(8, (1, 1))(x))).mean((1, 2)))
