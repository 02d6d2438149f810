"""Whole programs, compiled and not run: training steps of a ResNet-50 and of `python -m train`'s CNN; inference."""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Sharding
from jax.tree_util import Partial

import jaxbn
from benchmarks.norm_act import NormAct, NormName
from train.network.models import CNN, LayerOptions
from train.training.step import Examples, init_state, train_step

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # features and blocks
Remat = Literal["none", "blocks", "blocks-save-pre-norm", "network-save-pre-norm"]


class Block(nn.Module):
    """A bottleneck of 1×1, 3×3 and 1×1 convolutions; the shortcut's convolution may have a norm of its own."""

    norm: NormName
    features: int
    stride: int
    use_running_average: bool = False
    shortcut_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features to features."""
        conv = partial(nn.Conv, use_bias=False, dtype=x.dtype)
        norm_act = partial(NormAct, self.norm, use_running_average=self.use_running_average)
        y = norm_act()(conv(self.features, (1, 1))(x))
        y = norm_act()(conv(self.features, (3, 3), self.stride)(y))
        y = conv(4 * self.features, (1, 1))(y)
        if x.shape != y.shape:
            x = conv(4 * self.features, (1, 1), self.stride)(x)
            x = norm_act(activation=None)(x) if self.shortcut_norm else x
        return norm_act()(y, x)


class ResNet50(nn.Module):
    """A ResNet-50, whose blocks may be computed again for the backward pass.

    Attributes:
        norm: the name of the norm.
        remat: "blocks" keeps the inputs of blocks only, "blocks-save-pre-norm" also what `jaxbn.save_pre_norm` names.
        use_running_average: False in training.
        shortcut_norm: True for all 53 norms; else the four shortcuts with a convolution have none.

    """

    norm: NormName
    remat: Remat = "none"
    use_running_average: bool = False
    shortcut_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to logits."""
        block: Any = Block
        if self.remat.startswith("blocks"):
            block = nn.remat(Block, policy=jaxbn.save_pre_norm if self.remat.endswith("save-pre-norm") else None)
        pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding="SAME")
        x = nn.Conv(64, (7, 7), 2, use_bias=False, dtype=x.dtype)(x)
        x = NormAct(self.norm, max_pool=pool, use_running_average=self.use_running_average)(x)
        for stage, (features, blocks) in enumerate(STAGES):
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                x = block(self.norm, features, stride, self.use_running_average, self.shortcut_norm)(x)
        return nn.Dense(1000, dtype=x.dtype)(x.mean((1, 2)))


def resnet50(
    place: Sharding | None, norm: NormName, remat: Remat, batch_size: int, image_size: int, dtype: str
) -> jax.stages.Lowered:
    """Forward, backward and SGD with momentum, in one program."""
    model, tx = ResNet50(norm, remat), optax.sgd(0.1, momentum=0.9)
    shape = (batch_size, image_size, image_size, 3)
    images, labels = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape[:1], jnp.int32)

    def step(variables: Any, momenta: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        def network(params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
            given = {"params": params, "batch_stats": variables["batch_stats"]}
            return model.apply(given, images, mutable=["batch_stats"])

        def loss(params: Any) -> tuple[jax.Array, Any]:
            whole = remat == "network-save-pre-norm"
            function = jax.checkpoint(network, policy=jaxbn.save_pre_norm) if whole else network
            logits, updated = function(params, images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
            return losses.mean(), updated["batch_stats"]

        gradients, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        updates, momenta = tx.update(gradients, momenta)
        return {"params": optax.apply_updates(variables["params"], updates), "batch_stats": statistics}, momenta

    variables: Any = jax.eval_shape(model.init, jax.random.key(0), images)
    momenta = jax.eval_shape(tx.init, variables["params"])
    program = jax.jit(step, donate_argnums=(0, 1), in_shardings=place)
    return program.lower(variables, momenta, images, labels)


def resnet50_inference(
    place: Sharding | None, norm: NormName, folded: bool, batch_size: int, image_size: int, dtype: str
) -> jax.stages.Lowered:
    """Logits of images, with 53 norms that evaluate, or with these folded into the convolutions."""
    model: Any = ResNet50(norm, use_running_average=True, shortcut_norm=True)
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), dtype)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    network = Partial(model.apply, jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), shapes))
    if folded:
        network, report = jaxbn.fold_network(network, images)
        assert (len(report.folded), len(report.kept)) == (53, 0)
    network = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), network)
    program = jax.jit(lambda network, images: network(images), in_shardings=place)
    return program.lower(network, images)


def mnist_cnn(place: Sharding, norm: NormName, batch_size: int) -> jax.stages.Lowered:
    """The training program's step with Adam, in float32, on a batch that is on the device."""

    def norm_act(activation: Any = None, max_pool: Any = None, **options: Any) -> nn.Module:
        return NormAct(norm, activation, max_pool, **options)

    model, tx = CNN(10, layers=LayerOptions(norm_act), convolution=lax.conv_general_dilated), optax.adam(1e-3)
    images = jax.ShapeDtypeStruct((batch_size, 28, 28, 1), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    batch: Any = jax.eval_shape(Examples, images, labels)
    state = jax.eval_shape(lambda inputs: init_state(model, tx, inputs, seed=0), images)
    program = jax.jit(partial(train_step, model, tx), donate_argnums=0, in_shardings=place)
    return program.lower(state, batch)
