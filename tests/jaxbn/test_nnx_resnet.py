"""A ResNet of NNX modules, with either norm: the same state, the same training, the same checkpoints."""

from functools import partial
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close
from equivalence import assert_same
from flax import nnx

import jaxbn.nnx

OURS, FLAX = jaxbn.nnx.BatchNorm, nnx.BatchNorm
NORMS = pytest.mark.parametrize(("source", "target"), [(FLAX, OURS), (OURS, FLAX)], ids=["from Flax", "to Flax"])
IMAGES = jnp.asarray(np.random.default_rng(0).normal(0.5, 1, (20, 16, 8, 8, 3)), jnp.float32)  # one batch a step
LABELS = jnp.asarray(np.random.default_rng(1).integers(0, 4, (20, 16)))


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


class BasicBlock(nnx.Module):
    def __init__(self, norm: Any, inputs: int, outputs: int, strides: int, rngs: nnx.Rngs):
        conv: Any = partial(nnx.Conv, use_bias=False, rngs=rngs)
        self.conv1, self.norm1 = conv(inputs, outputs, (3, 3), strides), norm(outputs)
        self.conv2 = conv(outputs, outputs, (3, 3))
        self.norm2 = norm(outputs, scale_init=nnx.initializers.zeros_init())
        self.conv_proj, self.norm_proj = conv(inputs, outputs, (1, 1), strides), norm(outputs)

    def __call__(self, x):
        y = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(self.norm_proj(self.conv_proj(x)) + y)


class ResNet(nnx.Module):
    def __init__(self, norm: Any, rngs: nnx.Rngs):
        norm = partial(norm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.conv_init = nnx.Conv(3, 8, (3, 3), use_bias=False, rngs=rngs)
        self.bn_init = norm(8)
        self.blocks = nnx.List([BasicBlock(norm, 8, 8, 1, rngs), BasicBlock(norm, 8, 16, 2, rngs)])
        self.head = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.bn_init(self.conv_init(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, (1, 2)))


def begin(norm):
    model = ResNet(norm, nnx.Rngs(0))
    return model, nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9, nesterov=True), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, images, labels):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


@nnx.jit
def logits(model):
    return nnx.view(model, use_running_average=True)(IMAGES[0])


def values(model, optimizer) -> dict[str, Any]:
    """All values of a checkpoint, as plain dictionaries of arrays."""
    return {"model": nnx.to_pure_dict(nnx.state(model)), "optimizer": nnx.to_pure_dict(nnx.state(optimizer))}


@pytest.fixture(scope="module")
def trained():
    """The model, its optimizer and the losses of twenty steps, by norm."""

    def run(norm):
        model, optimizer = begin(norm)
        return model, optimizer, jnp.stack([step(model, optimizer, *b) for b in zip(IMAGES, LABELS, strict=True)])

    return {norm: run(norm) for norm in (OURS, FLAX)}


def test_the_same_state():
    ours, flaxs = (nnx.state(begin(norm)[0]) for norm in (OURS, FLAX))
    assert jax.tree.structure(ours) == jax.tree.structure(flaxs)
    jax.tree.map(partial(np.testing.assert_array_equal, strict=True), ours, flaxs)
    kinds = [[type(variable) for _, variable in nnx.to_flat_state(state)] for state in (ours, flaxs)]
    assert kinds[0] == kinds[1]


def test_the_same_training(trained):
    (*ours, losses), (*flaxs, flax_losses) = trained[OURS], trained[FLAX]
    assert_close(losses, flax_losses, condition=5, size=0)
    assert losses[-1] != losses[0]
    assert_same(values(*ours), values(*flaxs))
    assert_same(logits(ours[0]), logits(flaxs[0]))


def goes_on_alike(target, restored, source, saved) -> None:
    """The restored values are bit for bit the saved ones, and one norm continues where the other stopped."""
    jax.tree.map(np.testing.assert_array_equal, restored, saved)
    models = [(begin(target), restored), (begin(source), saved)]
    for (model, optimizer), given in models:
        for module, pure in ((model, given["model"]), (optimizer, given["optimizer"])):
            state = nnx.state(module)
            nnx.replace_by_pure_dict(state, pure)
            nnx.update(module, state)
    assert_same(*(logits(model) for (model, _), _ in models))
    left, right = (step(*pair, IMAGES[0], LABELS[0]) for pair, _ in models)
    assert_close(left, right, condition=5)
    assert_same(*(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)) for (model, _), _ in models))


@NORMS
def test_a_checkpoint_by_serialization(source, target, trained):
    saved = values(*trained[source][:2])
    restored: Any = flax.serialization.from_bytes(values(*begin(target)), flax.serialization.to_bytes(saved))
    goes_on_alike(target, restored, source, saved)


@NORMS
def test_a_checkpoint_by_orbax(source, target, trained, tmp_path):
    import orbax.checkpoint as ocp

    saved = values(*trained[source][:2])
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", saved)
        checkpointer.wait_until_finished()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, values(*begin(target)))
        restored = checkpointer.restore(tmp_path / "checkpoint", abstract)
    goes_on_alike(target, restored, source, saved)


@NORMS
def test_a_state_with_its_variables_by_orbax(source, target, trained, tmp_path):
    """As in Flax's guide: the `nnx.State` itself, and `nnx.merge` with the definition of the other model."""
    import orbax.checkpoint as ocp

    model = trained[source][0]
    graph, abstract = nnx.split(nnx.eval_shape(lambda: ResNet(target, nnx.Rngs(0))))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", nnx.state(model))
        checkpointer.wait_until_finished()
        merged = nnx.merge(graph, checkpointer.restore(tmp_path / "checkpoint", abstract))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(merged), nnx.state(model))
    assert_same(logits(merged), logits(model))
