"""Fine-tuning with frozen norms: frozen statistics, frozen affine parameters, or both."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close
from equivalence import assert_same, batch
from flax import nnx

import jaxbn.nnx

OURS: Any = jaxbn.nnx.BatchNorm
FLAX: Any = nnx.BatchNorm
NORMS = pytest.mark.parametrize("norm", [OURS, FLAX], ids=["ours", "Flax"])
X, TARGETS = batch(shape=(16, 6)), batch(shape=(16, 2), seed=1)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


class Network(nnx.Module):
    def __init__(self, norm: Any):
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(6, 5, rngs=rngs)
        self.norm = norm(5, momentum=0.5, rngs=rngs)
        self.second = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.norm(self.first(x))))


NOT_NORMS = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("norm")))


def fine_tuned(norm, trained, freeze, steps=3):
    """The state before and after; `trained` says which parameters learn, `freeze` sets the mode of the norms."""
    model = Network(norm)
    model(X)  # what a first training left
    before = nnx.to_pure_dict(nnx.state(model))
    freeze(model)
    optimizer = nnx.Optimizer(model, optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)), wrt=trained)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return optax.l2_loss(model(1 + 2 * X), TARGETS).mean()

        optimizer.update(model, nnx.grad(loss, argnums=nnx.DiffState(0, trained))(model))

    for _ in range(steps):
        step(model, optimizer)
    return before, nnx.to_pure_dict(nnx.state(model))


def changed(before, after) -> set[str]:
    """The variables that changed in any bit."""
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
    return {f"{layer}.{name}" for layer in same for name, value in same[layer].items() if not value}


LINEAR = {"first.kernel", "first.bias", "second.kernel", "second.bias"}
AFFINE, STATISTICS = {"norm.scale", "norm.bias"}, {"norm.mean", "norm.var"}


def nothing(model):
    """Leave the model in training mode."""


def of_the_class(model):
    """Freeze all norms of the model and nothing else: a dropout stays active."""
    model.set_attributes(type(model.norm), use_running_average=True)


def one_by_one(model):
    model.norm.use_running_average = True


@NORMS
@pytest.mark.parametrize("freeze", [of_the_class, one_by_one])
def test_frozen_statistics(norm, freeze):
    """The statistics are not updated; scale and bias continue to learn."""
    assert changed(*fine_tuned(norm, nnx.Param, freeze)) == LINEAR | AFFINE


@NORMS
def test_a_frozen_affine_part(norm):
    """Scale and bias do not change, even under weight decay; the statistics follow the new data."""
    assert changed(*fine_tuned(norm, NOT_NORMS, nothing)) == LINEAR | STATISTICS


@NORMS
def test_a_norm_that_is_frozen_altogether(norm):
    assert changed(*fine_tuned(norm, NOT_NORMS, of_the_class)) == LINEAR


@NORMS
def test_a_view_with_frozen_statistics(norm):
    """The view shares the variables with the model, whose own mode does not change."""
    model = Network(norm)
    frozen = nnx.view(model, use_running_average=True)
    before = nnx.to_pure_dict(nnx.state(model))
    frozen(X)
    assert changed(before, nnx.to_pure_dict(nnx.state(model))) == set()
    model(X)
    assert changed(before, nnx.to_pure_dict(nnx.state(model))) == STATISTICS


@pytest.mark.parametrize("freeze", [nothing, of_the_class])
@pytest.mark.parametrize("trained", [nnx.Param, NOT_NORMS])
def test_the_same_fine_tuning_as_flaxs(trained, freeze):
    assert_same(fine_tuned(OURS, trained, freeze), fine_tuned(FLAX, trained, freeze))


def test_a_frozen_norm_is_an_affine_map():
    """The gradient is scale / running deviation for every batch, without terms of the batch's statistics."""
    module = OURS(6, use_running_average=True, rngs=nnx.Rngs(0))
    module.var[...] = jnp.arange(1.0, 7)
    gradient = jax.grad(lambda x: jnp.sum(module(x)))(X)
    assert_close(gradient, np.broadcast_to(1 / np.sqrt(np.arange(1.0, 7) + 1e-5), (16, 6)))
