from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close

from train.network.models import MLP, LayerOptions
from train.studies.study import Data
from train.studies.sweep import accuracy, fit, orders, product, scale_kernels, start
from train.training.step import Examples, train_step

DATA = Examples(
    jax.random.uniform(jax.random.key(0), (30, 4)), jax.random.randint(jax.random.key(1), (30,), 0, 3, jnp.int32)
)
MODEL = MLP(3, (5,), LayerOptions(norm=None))


def begin(model, tx):
    """The state before the first step, compiled as one program."""
    return jax.jit(partial(start, model, tx))(DATA, jnp.int32(0))


def test_product_has_the_axes_in_front():
    found = product(lambda a, b: {"sum": a + b, "pair": jnp.stack([a, b])}, np.array([1, 2], np.float32), range(3))
    np.testing.assert_array_equal(found["sum"], [[1, 2, 3], [2, 3, 4]])
    assert found["pair"].shape == (2, 3, 2)
    np.testing.assert_array_equal(found["pair"][1, 2], [2, 2])


def test_product_is_the_same_at_once_and_one_by_one(monkeypatch):
    def run(rate, seed):
        tx = optax.sgd(rate)
        state = start(MODEL, tx, DATA, seed)
        return fit(MODEL, tx, state, DATA, orders(seed, 30, 6, 10), accuracy(MODEL, DATA), every=3)[1:]

    one_by_one = product(run, np.array([0.1, 1.0], np.float32), range(2))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    at_once = product(run, np.array([0.1, 1.0], np.float32), range(2))
    assert_close(one_by_one, at_once, condition=5)


@pytest.mark.parametrize(("examples", "steps", "batch"), [(10, 7, 3), (8, 4, 4), (5, 1, 5)])
def test_every_epoch_visits_each_example_at_most_once(examples, steps, batch):
    order = np.asarray(orders(jnp.int32(3), examples, steps, batch))
    assert order.shape == (steps, batch)
    each = examples // batch
    epochs = [order[i : i + each].ravel() for i in range(0, steps, each)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(examples))
    if len(epochs) > 1:
        assert epochs[0].tolist() != epochs[1].tolist()


def test_fit_takes_the_steps_of_train_step():
    tx = optax.sgd(0.5)
    state = begin(MODEL, tx)
    order = orders(jnp.int32(0), 30, 4, 10)
    last, losses, measured = fit(MODEL, tx, state, DATA, order, lambda state: state.step, every=2)
    np.testing.assert_array_equal(measured, [2, 4])
    expected, step = [], jax.jit(partial(train_step, MODEL, tx))
    for rows in order:
        state, metrics = step(state, Examples(DATA.inputs[rows], DATA.labels[rows]))
        expected.append(metrics.loss / 10)
    assert_close(losses, np.asarray(expected), size=0)
    assert_close(last.params, state.params, condition=5)


def test_accuracy_counts_every_example_once():
    state = begin(MODEL, optax.sgd(0.1))
    logits = MODEL.apply({"params": state.params}, DATA.inputs, train=False)
    expected = 100 * np.mean(np.argmax(np.asarray(logits), -1) == np.asarray(DATA.labels))
    assert_close(accuracy(MODEL, DATA)(state), expected)


def test_scale_kernels_leaves_the_rest():
    state = begin(MLP(3, (5,), LayerOptions()), optax.sgd(0.1))
    scaled = scale_kernels(state, jnp.float32(0.5))
    for layer, leaves in state.params.items():
        for name, leaf in leaves.items():
            factor = 0.5 if name == "kernel" else 1.0
            np.testing.assert_array_equal(scaled.params[layer][name], factor * leaf)


def test_first_examples():
    data = Data("some", DATA, DATA).first(7, 100)
    assert data.train.labels.size == 7
    assert data.test.labels.size == 30
    np.testing.assert_array_equal(data.train.inputs, DATA.inputs[:7])
