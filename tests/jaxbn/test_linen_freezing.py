"""Fine-tuning with frozen norms: frozen statistics, frozen affine parameters, or both."""

from operator import not_
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close
from equivalence import assert_same, batch

import jaxbn.linen
from jaxbn import decay_mask

OURS, FLAX = jaxbn.linen.BatchNorm, nn.BatchNorm
NORMS = pytest.mark.parametrize("norm", [OURS, FLAX], ids=["ours", "Flax"])
X, TARGETS = batch(shape=(16, 6)), batch(shape=(16, 2), seed=1)
SGD = optax.sgd(0.1)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


class Network(nn.Module):
    norm: Any

    @nn.compact
    def __call__(self, x, train: bool, frozen: bool = False):
        x = nn.Dense(5, name="first")(x)
        x = self.norm(use_running_average=frozen or not train, momentum=0.5, name="norm")(x)
        return nn.Dense(2, name="second")(nn.relu(x))


def norms(path: tuple, _: Any) -> str:
    return "frozen" if any("norm" in key.key for key in path) else "trained"


def labels(params):
    return jax.tree.map_with_path(norms, params)


OPTIMIZERS = {
    "multi_transform": optax.multi_transform({"trained": SGD, "frozen": optax.set_to_zero()}, labels),
    "partition": optax.partition({"trained": SGD, "frozen": optax.set_to_zero()}, labels),
    "masked": optax.chain(SGD, optax.masked(optax.set_to_zero(), lambda p: jax.tree.map("frozen".__eq__, labels(p)))),
    "decay_mask": optax.chain(SGD, optax.masked(optax.set_to_zero(), lambda p: jax.tree.map(not_, decay_mask(p)))),
}


def fine_tuned(norm, optimizer, frozen, steps=3):
    """The variables before and after fine-tuning."""
    network = Network(norm)
    before = network.init(jax.random.key(0), X, train=False)
    _, updates = network.apply(before, X, train=True, mutable=["batch_stats"])  # what a first training left
    before = {**before, **updates}

    @jax.jit
    def step(variables, memory):
        def loss(params):
            given = {**variables, "params": params}
            y, updates = network.apply(given, 1 + 2 * X, train=True, frozen=frozen, mutable=["batch_stats"])
            return optax.l2_loss(y, TARGETS).mean(), updates

        gradients, updates = jax.grad(loss, has_aux=True)(variables["params"])
        changes, memory = optimizer.update(gradients, memory, variables["params"])
        return {"params": optax.apply_updates(variables["params"], changes), **updates}, memory

    after, memory = before, optimizer.init(before["params"])
    for _ in range(steps):
        after, memory = step(after, memory)
    return before, after


def unchanged(before, after) -> dict[str, bool]:
    """For each layer and collection, whether it is bit for bit as before."""
    return {
        f"{collection}/{layer}": all(
            jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), leaves, after[collection][layer]))
        )
        for collection in before
        for layer, leaves in before[collection].items()
    }


@NORMS
def test_frozen_statistics(norm):
    """The running statistics normalise and are not updated; scale and bias continue to learn."""
    before, after = fine_tuned(norm, SGD, frozen=True)
    assert unchanged(before, after) == {
        "params/first": False,
        "params/norm": False,
        "params/second": False,
        "batch_stats/norm": True,
    }


@NORMS
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_frozen_affine_part(norm, optimizer):
    """Scale and bias do not change; the statistics follow the new data."""
    before, after = fine_tuned(norm, OPTIMIZERS[optimizer], frozen=False)
    assert unchanged(before, after) == {
        "params/first": False,
        "params/norm": True,
        "params/second": False,
        "batch_stats/norm": False,
    }


@NORMS
def test_a_norm_that_is_frozen_altogether(norm):
    before, after = fine_tuned(norm, OPTIMIZERS["partition"], frozen=True)
    assert unchanged(before, after) == {
        "params/first": False,
        "params/norm": True,
        "params/second": False,
        "batch_stats/norm": True,
    }


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("optimizer", [SGD, OPTIMIZERS["partition"]])
def test_the_same_fine_tuning_as_flaxs(optimizer, frozen):
    assert_same(fine_tuned(OURS, optimizer, frozen), fine_tuned(FLAX, optimizer, frozen))


def test_a_frozen_norm_is_an_affine_map():
    """The gradient is scale / running deviation for every batch, without terms of the batch's statistics."""
    module: Any = OURS(use_running_average=True)
    variables = module.init(jax.random.key(0), X)
    variables = {**variables, "batch_stats": {"mean": jnp.full(6, 3.0), "var": jnp.arange(1.0, 7)}}
    gradient = jax.grad(lambda x: jnp.sum(module.apply(variables, x)))(X)
    assert_close(gradient, np.broadcast_to(1 / np.sqrt(np.arange(1.0, 7) + 1e-5), (16, 6)))
