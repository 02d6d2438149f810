"""A ResNet as in Flax's ImageNet example, with either norm: the same tree, the same training, the same checkpoints."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close
from equivalence import assert_same
from flax.training.train_state import TrainState

import jaxbn.linen

OURS, FLAX = jaxbn.linen.BatchNorm, nn.BatchNorm
NORMS = pytest.mark.parametrize(("source", "target"), [(FLAX, OURS), (OURS, FLAX)], ids=["from Flax", "to Flax"])
IMAGES = jnp.asarray(np.random.default_rng(0).normal(0.5, 1, (20, 16, 8, 8, 3)), jnp.float32)  # one batch a step
LABELS = jnp.asarray(np.random.default_rng(1).integers(0, 4, (20, 16)))


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


class BottleneckBlock(nn.Module):
    filters: int
    strides: int
    conv: Callable[..., Any]
    norm: Callable[..., Any]

    @nn.compact
    def __call__(self, x):
        y = nn.relu(self.norm()(self.conv(self.filters, (1, 1))(x)))
        y = nn.relu(self.norm()(self.conv(self.filters, (3, 3), self.strides)(y)))
        y = self.norm(scale_init=nn.initializers.zeros_init())(self.conv(2 * self.filters, (1, 1))(y))
        if x.shape != y.shape:
            x = self.conv(2 * self.filters, (1, 1), self.strides, name="conv_proj")(x)
            x = self.norm(name="norm_proj")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    norm: type[nn.Module]

    @nn.compact
    def __call__(self, x, train: bool):
        conv: Any = partial(nn.Conv, use_bias=False)
        norm: Any = partial(self.norm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = nn.relu(norm(name="bn_init")(conv(8, (3, 3), name="conv_init")(x)))
        for stage in range(2):
            x = BottleneckBlock(8 * 2**stage, 1 + stage, conv, norm)(x)
        return nn.Dense(4)(jnp.mean(x, (1, 2)))


class State(TrainState):
    batch_stats: Any = None


@cache
def begin(norm) -> State:
    model: Any = ResNet(norm)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), IMAGES[0, :1])
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
    return State.create(apply_fn=model.apply, tx=optimizer, **variables)


@jax.jit
def step(state: State, batch):
    images, labels = batch

    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updates = state.apply_fn(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

    (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=updates["batch_stats"]), value


@pytest.fixture(scope="module")
def trained():
    """The states and the losses of twenty steps, by norm."""
    return {norm: jax.lax.scan(step, begin(norm), (IMAGES, LABELS)) for norm in (OURS, FLAX)}


def values(state: State) -> dict[str, Any]:
    """All values of a checkpoint."""
    return {"params": state.params, "batch_stats": state.batch_stats, "opt_state": state.opt_state, "step": state.step}


def logits(state: State) -> jax.Array:
    return state.apply_fn({"params": state.params, "batch_stats": state.batch_stats}, IMAGES[0], train=False)


def test_the_same_tree():
    ours, flaxs = (values(begin(norm)) for norm in (OURS, FLAX))
    assert set(ours["params"]) == {"conv_init", "bn_init", "BottleneckBlock_0", "BottleneckBlock_1", "Dense_0"}
    assert {"BatchNorm_0", "BatchNorm_1", "BatchNorm_2", "norm_proj"} < set(ours["params"]["BottleneckBlock_1"])
    assert jax.tree.structure(ours) == jax.tree.structure(flaxs)
    jax.tree.map(partial(np.testing.assert_array_equal, strict=True), ours, flaxs)


def test_the_same_training(trained):
    (ours, losses), (flaxs, flax_losses) = trained[OURS], trained[FLAX]
    assert_close(losses, flax_losses, condition=5, size=0)
    assert losses[-1] != losses[0]
    assert_same(values(ours), values(flaxs))
    assert_same(logits(ours), logits(flaxs))


def goes_on_alike(target, restored, source, state) -> None:
    """The restored values are bit for bit the saved ones, and one norm continues where the other stopped."""
    jax.tree.map(np.testing.assert_array_equal, restored, values(state))
    left, right = begin(target).replace(**restored), begin(source).replace(**values(state))
    assert_same(logits(left), logits(right))
    (left, loss), (right, other) = (step(s, (IMAGES[0], LABELS[0])) for s in (left, right))
    assert_close(loss, other, condition=5, size=0)
    assert_same(left.batch_stats, right.batch_stats)


@NORMS
def test_a_checkpoint_by_serialization(source, target, trained):
    state, _ = trained[source]
    stored = flax.serialization.to_bytes(values(state))
    restored: Any = flax.serialization.from_bytes(values(begin(target)), stored)
    goes_on_alike(target, restored, source, state)


@NORMS
def test_a_checkpoint_by_orbax(source, target, trained, tmp_path):
    import orbax.checkpoint as ocp

    state, _ = trained[source]
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", values(state))
        checkpointer.wait_until_finished()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, values(begin(target)))
        restored = checkpointer.restore(tmp_path / "checkpoint", abstract)
    goes_on_alike(target, restored, source, state)
