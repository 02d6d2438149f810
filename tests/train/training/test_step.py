"""A training step beside a float64 one by hand, many steps beside one at a time, and evaluation counted to the bit."""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

import jaxbn.linen
from train.config.sections import OptimizerConfig
from train.network.models import MLP, LayerOptions
from train.training.loop import epoch_order, initial_state, initializer
from train.training.optimizer import optimizer
from train.training.step import (
    Examples,
    Metrics,
    TrainState,
    add,
    evaluate,
    init_state,
    no_metrics,
    prepare,
    train_step,
    train_steps,
)

MOMENTUM, EPSILON, RATE = 0.8, 1e-3, 3e-3
BATCH, STEPS = 8, 5
MODEL = MLP(
    3, hidden=(5,), layers=LayerOptions(norm=partial(jaxbn.linen.BatchNorm, momentum=MOMENTUM, epsilon=EPSILON))
)
NAMES = {
    "kernel1": ("dense1", "kernel"),
    "scale": ("norm1", "scale"),
    "bias1": ("norm1", "bias"),
    "kernel2": ("logits", "kernel"),
    "bias2": ("logits", "bias"),
}


class Draft(NamedTuple):
    """The state of the float64 reference after a step."""

    params: dict[str, np.ndarray]
    mean: np.ndarray
    var: np.ndarray
    losses: np.ndarray  # of each example
    correct: np.ndarray  # of each example: whether its label has the largest logit


def gradients_by_hand(p, x, labels):
    """Forward and backward of one hidden layer with batch normalization, in NumPy."""
    z = x @ p["kernel1"]
    mean, var = z.mean(0), z.var(0)
    deviation = np.sqrt(var + EPSILON)
    normalised = (z - mean) / deviation
    before = normalised * p["scale"] + p["bias1"]
    hidden = np.maximum(before, 0)
    logits = hidden @ p["kernel2"] + p["bias2"]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = odds / odds.sum(1, keepdims=True)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])

    d_logits = (probabilities - np.eye(3)[labels]) / len(labels)
    d_before = d_logits @ p["kernel2"].T * (before > 0)
    d_normalised = d_before * p["scale"]
    d_z = d_normalised - d_normalised.mean(0) - normalised * (d_normalised * normalised).mean(0)
    gradients = {
        "kernel1": x.T @ d_z / deviation[None],
        "scale": (d_before * normalised).sum(0),
        "bias1": d_before.sum(0),
        "kernel2": hidden.T @ d_logits,
        "bias2": d_logits.sum(0),
    }
    return gradients, mean, var, losses, logits


def train_by_hand(params, inputs, labels, order):
    """Adam (Kingma & Ba 2015, algorithm 1) with the gradients by hand, and the running statistics."""
    p, first, second = dict(params), dict.fromkeys(params, 0.0), dict.fromkeys(params, 0.0)
    mean, var = np.zeros(5), np.ones(5)
    for t in range(1, len(order) // BATCH + 1):
        chosen = order[BATCH * (t - 1) : BATCH * t]
        gradients, batch_mean, batch_var, losses, logits = gradients_by_hand(p, inputs[chosen], labels[chosen])
        mean = MOMENTUM * mean + (1 - MOMENTUM) * batch_mean
        var = MOMENTUM * var + (1 - MOMENTUM) * batch_var
        for name, g in gradients.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            step = (first[name] / (1 - 0.9**t)) / (np.sqrt(second[name] / (1 - 0.999**t)) + 1e-8)
            p[name] = p[name] - RATE * step
        yield Draft(dict(p), mean, var, losses, logits.argmax(1) == labels[chosen])


class Trained(NamedTuple):
    """The same steps three times in float64: by hand, one at a time, and in one loop."""

    drafts: list[Draft]
    states: list[TrainState]
    metrics: list[Metrics]
    state: TrainState
    total: Metrics


@pytest.fixture(scope="module")
def trained():
    random = np.random.default_rng(0)
    inputs, labels = random.normal(3, 2, (50, 4)), random.integers(0, 3, 50).astype(np.int32)
    order = random.permutation(50).astype(np.int32)
    with jax.enable_x64(True):
        tx = optimizer(OptimizerConfig(optimizer="adam", learning_rate=RATE, schedule="constant"), STEPS)
        state = jax.jit(lambda x: init_state(MODEL, tx, x, seed=0))(jnp.asarray(inputs))
        # Random scales and biases: with those of the start, 1 and 0, some mistakes would not show.
        params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(0.5, 1, leaf.shape)), state.params)
        stats = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), state.batch_stats)
        start = TrainState(state.step, params, stats, tx.init(params))
        by_hand = {name: np.asarray(params[a][b]) for name, (a, b) in NAMES.items()}
        drafts = list(train_by_hand(by_hand, inputs, labels, order[: STEPS * BATCH]))

        step = jax.jit(partial(train_step, MODEL, tx))
        state, states, metrics = start, [], []
        for i in range(STEPS):
            chosen = order[BATCH * i : BATCH * (i + 1)]
            state, measured = step(state, Examples(jnp.asarray(inputs[chosen]), jnp.asarray(labels[chosen])))
            states.append(state)
            metrics.append(measured)
        many = jax.jit(partial(train_steps, MODEL, tx, batch_size=BATCH))
        on_device = Examples(jnp.asarray(inputs), jnp.asarray(labels))
        state, total = many(start, on_device, jnp.asarray(order), (jnp.int32(0), jnp.int32(STEPS)))
    return Trained(drafts, states, metrics, state, total)


def test_steps_of_adam_are_those_by_hand(trained):
    for t, (draft, state) in enumerate(zip(trained.drafts, trained.states, strict=True), 1):
        for name, (layer, leaf) in NAMES.items():
            np.testing.assert_allclose(state.params[layer][leaf], draft.params[name], 1e-9, 1e-9, err_msg=f"{name} {t}")
        assert state.step == t


def test_running_statistics_after_each_step_are_those_by_hand(trained):
    for draft, state in zip(trained.drafts, trained.states, strict=True):
        assert_close(state.batch_stats["norm1"]["mean"], draft.mean, condition=1000)
        assert_close(state.batch_stats["norm1"]["var"], draft.var, condition=1000, size=0)


def test_loss_and_accuracy_of_each_step_are_those_by_hand(trained):
    for draft, metrics in zip(trained.drafts, trained.metrics, strict=True):
        assert_close(metrics.loss, draft.losses.sum(), condition=1000, size=0)
        assert metrics.correct == draft.correct.sum()
        assert metrics.count == BATCH
    assert 0 < sum(draft.correct.sum() for draft in trained.drafts) < STEPS * BATCH


def test_a_loop_on_the_device_is_the_same_as_step_after_step(trained):
    assert jax.tree.structure(trained.state) == jax.tree.structure(trained.states[-1])
    for looped, single in zip(jax.tree.leaves(trained.state), jax.tree.leaves(trained.states[-1]), strict=True):
        assert looped.dtype == single.dtype
        assert_close(looped, single, condition=1000)
    assert_close(trained.total.loss, sum(float(m.loss) for m in trained.metrics), size=0)
    assert trained.total.correct == sum(int(m.correct) for m in trained.metrics)
    assert trained.total.count == STEPS * BATCH


def test_it_does_not_matter_where_an_epoch_is_cut(plan, programs):
    """To the bit, since it is one program."""
    order = epoch_order(plan, 1)

    def walk(*marks):
        state, totals = initial_state(plan), []
        for start, stop in pairwise(marks):
            state, total = programs.train(state, plan.train, order, (jnp.int32(start), jnp.int32(stop)))
            totals.append(total)
        return state, totals

    whole, (total,) = walk(0, 6)
    cut, totals = walk(0, 1, 4, 4, 6)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [int(t.count) for t in totals] == [8, 24, 0, 16]
    assert sum(int(t.correct) for t in totals) == total.correct
    assert_close(sum(float(t.loss) for t in totals), total.loss, size=0)


def test_a_state_and_its_metrics_keep_their_types(plan):
    state = initializer(plan).eval_shape(plan.train.inputs[:1])
    batch = jax.eval_shape(lambda: Examples(plan.train.inputs[:8], plan.train.labels[:8]))
    after, metrics = jax.eval_shape(partial(train_step, plan.model, plan.tx), state, batch)
    assert after == state
    assert metrics == jax.eval_shape(no_metrics)
    assert (metrics.loss.dtype, metrics.correct.dtype, metrics.count.dtype) == (jnp.float32, jnp.int32, jnp.int32)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {jnp.dtype(jnp.float32)}


def test_the_start_comes_from_the_seed_alone(plan):
    state = initial_state(plan)
    assert state.step == 0
    stats = state.batch_stats["norm1"]
    np.testing.assert_array_equal(stats["mean"], np.zeros(4))
    np.testing.assert_array_equal(stats["var"], np.ones(4))
    other_data = init_state(plan.model, plan.tx, plan.test.inputs[5:], plan.seed)
    jax.tree.map(np.testing.assert_array_equal, state.params, other_data.params)
    other_seed = init_state(plan.model, plan.tx, plan.train.inputs, 1)
    kernels = [s.params["dense"]["kernel"] for s in (state, other_seed)]
    assert np.mean(kernels[0] == kernels[1]) < 0.01


class Powers(nn.Module):
    """No parameters: the loss of an example of label 1 is its input, exactly, and it is classified wrongly."""

    @nn.compact
    def __call__(self, x, train):
        return jnp.concatenate([jnp.zeros_like(x), -x], axis=-1)


def powers(n):
    """n ≤ 17 examples with the losses 128·2ⁱ: their sum tells, bit by bit, which were counted, and how often."""
    return Examples(jnp.asarray(128 * 2.0 ** np.arange(n)[:, None], jnp.float32), jnp.asarray(np.ones(n), jnp.int32))


@pytest.mark.parametrize(
    ("n", "batch_size"), [(1, 1), (1, 4), (8, 4), (9, 4), (11, 4), (13, 1), (7, 7), (6, 7), (17, 16)]
)
def test_evaluation_counts_every_example_exactly_once(n, batch_size):
    """A sum of n powers of two is 2ⁿ − 1 only if each of the first n occurs once."""
    state = TrainState(jnp.int32(0), {}, {}, ())
    program = jax.jit(partial(evaluate, Powers(), batch_size=batch_size))
    assert program(state, powers(n)) == (128 * (2**n - 1), 0, n)
    answers = Examples(powers(n).inputs, jnp.asarray(np.arange(n) % 2, jnp.int32))  # class 0 is always the answer
    assert program(state, answers).correct == (n + 1) // 2


@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
def test_evaluation_does_not_depend_on_the_batch_size(plan, recorded, batch_size):
    """Equal to all at once, in float64 from the logits on: the running statistics are used, so examples do not mix."""
    state = recorded.states[-1]
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    forward = jax.jit(lambda v, x: plan.model.apply(v, prepare(x), train=False))
    logits = np.asarray(forward(variables, plan.test.inputs), np.float64)
    labels = np.asarray(plan.test.labels)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(23), labels]
    metrics = jax.jit(partial(evaluate, plan.model, batch_size=batch_size))(state, plan.test)
    assert (int(metrics.correct), int(metrics.count)) == (np.sum(logits.argmax(1) == labels), 23)
    assert_close(metrics.loss, losses.sum(), condition=5, size=0)


def test_metrics_add_up():
    some = Metrics(jnp.float32(1.5), jnp.int32(2), jnp.int32(3))
    assert add(some, no_metrics()) == some
    assert add(some, Metrics(jnp.float32(0.25), jnp.int32(1), jnp.int32(4))) == (1.75, 3, 7)


def test_images_are_scaled_and_features_are_left_alone():
    images = prepare(jnp.asarray([[0, 51, 255]], jnp.uint8))
    assert images.dtype == jnp.float32
    assert_close(images, np.asarray([[0, 0.2, 1]]))
    features = jnp.asarray([[0.0, 51.0, 255.0]])
    assert prepare(features) is features


def rates(schedule, total_steps, learning_rate=0.5):
    """The learning rate of each step: what Adam subtracts where every gradient is 1."""
    tx = optimizer(OptimizerConfig(optimizer="adam", learning_rate=learning_rate, schedule=schedule), total_steps)
    state, taken = tx.init(jnp.ones(())), []
    for _ in range(total_steps):
        updates, state = tx.update(jnp.ones(()), state)
        taken.append(-np.asarray(updates))
    return np.array(taken)


def test_the_schedules_have_their_closed_forms():
    t = np.arange(20)
    assert_close(rates("constant", 20), np.full(20, 0.5), condition=50, size=0)
    assert_close(rates("cosine", 20), 0.25 * (1 + np.cos(np.pi * t / 20)), condition=50, size=0.5)
    up = 0.5 / 25 + (0.5 - 0.5 / 25) * (1 - np.cos(np.pi * t / 4)) / 2
    down = 0.5 / 25e4 + (0.5 - 0.5 / 25e4) * (1 + np.cos(np.pi * (t - 4) / 16)) / 2
    assert_close(rates("one-cycle", 20), np.where(t < 4, up, down), condition=50, size=0.5)


@pytest.mark.parametrize("total_steps", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
def test_the_schedules_of_very_short_runs_are_rates(schedule, total_steps):
    taken = rates(schedule, total_steps)
    assert np.all(taken > 0)
    assert np.all(taken <= 0.5 * (1 + 1e-4))
