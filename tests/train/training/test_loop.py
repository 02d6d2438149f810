"""The loop: the same bits for the same seed, one compilation, donated memory, every example at its time."""

import dataclasses
import math
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close

from train.config.checks import check
from train.config.datasets import DATASETS
from train.config.sections import Config, DatasetName, OptimizerConfig, RunConfig
from train.data import NAMES, load
from train.host.errors import UsageError
from train.network.models import CNN, MLP
from train.training import loop
from train.training.plan import Plan, make_plan
from train.training.step import Examples


def outcome(recorded):
    """All that a run is expected to repeat: everything but the clock."""
    clock = {"images_per_second", "train_seconds"}
    events = [{k: v for k, v in dataclasses.asdict(e).items() if k not in clock} for e in recorded.events]
    return events, [np.asarray(leaf) for state in recorded.states for leaf in jax.tree.leaves(state)]


def test_a_seed_repeats_a_run_to_the_bit(plan, recorded, record):
    """With programs compiled anew, too."""
    events, leaves = outcome(recorded)
    again_events, again_leaves = outcome(record(plan))
    assert again_events == events
    assert all(np.array_equal(a, b) for a, b in zip(leaves, again_leaves, strict=True))


def test_another_seed_is_another_run(plan, programs, recorded, record):
    other = record(dataclasses.replace(plan, seed=1), programs)
    kernels = [each.states[-1].params["conv1"]["kernel"] for each in (recorded, other)]
    assert np.mean(kernels[0] == kernels[1]) < 0.1
    assert other.epochs[0].train_loss != recorded.epochs[0].train_loss


def test_a_run_compiles_its_two_programs_once(plan):
    """And nothing at all after the first epoch."""
    compiled = []

    def listen(event, duration_secs, **details):
        if event.endswith("/backend_compile_duration"):
            compiled.append(details.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        state = loop.initial_state(plan)
        programs = loop.compile_programs(plan, state)
        for event, _, _ in loop.run(plan, programs, state):
            if isinstance(event, loop.Epoch) and event.epoch == 1:
                compiled.append("the second epoch")
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert (compiled.count("jit(train_steps)"), compiled.count("jit(evaluate)")) == (1, 1)
    assert compiled[-1] == "the second epoch"
    assert isinstance(programs.train, jax.stages.Compiled)
    assert isinstance(programs.evaluate, jax.stages.Compiled)
    assert programs.seconds > 0


def test_the_memory_of_a_state_is_used_again(plan, programs):
    first = loop.initial_state(plan)
    running = loop.run(plan, programs, first)
    _, second, _ = next(running)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(second))
    next(running)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(second))


def test_what_a_run_yields(plan, recorded):
    """Six reports an epoch, one for each step, then the record of the epoch; its averages are those of the reports."""
    kinds = [type(event).__name__ for event in recorded.events]
    assert kinds == (["Progress"] * 6 + ["Epoch"]) * 2
    assert [event.step for event in recorded.events] == [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12]
    assert [int(state.step) for state in recorded.states] == [event.step for event in recorded.events]
    for epoch in recorded.epochs:
        parts = [p for p in recorded.progress if p.epoch == epoch.epoch]
        assert len(parts) == 6
        assert epoch.train_loss == pytest.approx(np.mean([p.loss for p in parts]), rel=1e-12)
        assert epoch.train_accuracy == pytest.approx(np.mean([p.accuracy for p in parts]), rel=1e-12)
    first, second = recorded.epochs
    assert 0 < first.train_seconds < second.train_seconds
    for epoch, seconds in [(first, first.train_seconds), (second, second.train_seconds - first.train_seconds)]:
        assert epoch.images_per_second == pytest.approx(48 / seconds)
    before, after = recorded.states[-2], recorded.states[-1]
    jax.tree.map(np.testing.assert_array_equal, before, after)  # evaluation changes nothing


def test_the_test_metrics_are_those_of_the_state_after_the_epoch(plan, programs, recorded):
    for epoch, state in zip(recorded.epochs, (recorded.states[6], recorded.states[13]), strict=True):
        metrics = programs.evaluate(jax.tree.map(jnp.asarray, state), plan.test)
        assert (epoch.test_loss, epoch.test_accuracy) == (float(metrics.loss) / 23, int(metrics.correct) / 23)


class Powers(nn.Module):
    """The loss of an example of label 1 is its input, exactly, as long as nothing is learned."""

    @nn.compact
    def __call__(self, x, train):
        x = x * self.param("one", nn.initializers.ones, ())
        return jnp.concatenate([jnp.zeros_like(x), -x], axis=-1)


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, [3]), (1.5, [6, 3]), (0.001, [1])])
def test_a_part_of_an_epoch_is_the_beginning_of_a_whole_one(plan, programs, recorded, record, epochs, steps):
    assert plan.steps_per_epoch == 6
    part = record(dataclasses.replace(plan, epochs=epochs), programs)
    assert [epoch.step for epoch in part.epochs] == np.cumsum(steps).tolist()
    whole = {event.step: event.loss for event in recorded.events if isinstance(event, loop.Progress)}
    seen = {event.step: event.loss for event in part.events if isinstance(event, loop.Progress)}
    assert len(seen) == sum(steps)
    assert seen == {step: whole[step] for step in seen}


def bits(total):
    """The positions of the examples whose losses, 128·2ⁱ, sum to the total."""
    assert total % 128 == 0
    return {i for i in range(17) if int(total) // 128 >> i & 1}


def test_each_epoch_leaves_out_what_fills_no_batch_and_other_examples_each_time(record):
    """The losses are powers of two, so the summed loss of an epoch tells which examples it visited."""
    data = Examples(128 * 2.0 ** jnp.arange(11, dtype=jnp.float32)[:, None], jnp.ones(11, jnp.int32))
    model: Any = Powers()
    plan = Plan(model, optax.sgd(0.0), data, data, epochs=6, batch_size=4, seed=0)
    assert (plan.steps_per_epoch, plan.left_out) == (2, 11 % 4)
    events = record(plan).events
    epochs = [event for event in events if isinstance(event, loop.Epoch)]
    visited = [bits(epoch.train_loss * 8) for epoch in epochs]
    assert [len(each) for each in visited] == [8] * 6  # eight losses: each is of another example
    expected = [set(np.asarray(loop.epoch_order(plan, epoch.epoch)[:8]).tolist()) for epoch in epochs]
    assert visited == expected
    left_out = [frozenset(range(11)) - each for each in visited]
    assert len(set(left_out)) > 1
    assert frozenset.intersection(*left_out) == frozenset()
    assert [epoch.test_loss for epoch in epochs] == [128 * (2**11 - 1) / 11] * 6


def test_the_order_of_an_epoch_comes_from_seed_and_epoch_alone(plan):
    order = loop.epoch_order(plan, 1)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(jnp.sort(order), jnp.arange(50))
    other = dataclasses.replace(plan, model=MLP(3), batch_size=3, epochs=9, test=plan.train, tx=optax.sgd(1.0))
    np.testing.assert_array_equal(loop.epoch_order(other, 1), order)
    # Two random orders of 50 agree in one place on average, and in ten or more once in a million times.
    assert np.sum(loop.epoch_order(plan, 2) == order) < 10
    assert np.sum(loop.epoch_order(dataclasses.replace(plan, seed=1), 1) == order) < 10
    assert np.sum(loop.epoch_order(dataclasses.replace(plan, seed=1), 1) == loop.epoch_order(plan, 2)) < 10


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 21, 39, 40, 41, 938, 1875])
def test_spans_follow_each_other_through_the_epoch(steps):
    spans = loop.spans(steps)
    assert [step for start, stop in spans for step in range(start, stop)] == list(range(steps))
    assert len(spans) <= loop.REPORTS_PER_EPOCH
    lengths = {stop - start for start, stop in spans[:-1]}
    assert len(lengths) <= 1
    assert all(spans[-1][1] - spans[-1][0] <= length for length in lengths)


def diverging(plan, **changes):
    plan = dataclasses.replace(plan, **changes)
    state = loop.initial_state(plan)
    return loop.run(plan, loop.compile_programs(plan, state), state)


def test_a_loss_that_is_not_finite_ends_the_run(plan):
    running = diverging(plan, tx=optax.adam(1e30))
    message = r"the loss became (nan|inf) in epoch 1, by step 2: training has diverged\. Lower --learning-rate, or look"
    next(running)  # the first step starts from good parameters
    with pytest.raises(FloatingPointError, match=message):
        next(running)


def test_values_in_the_data_that_are_not_finite_are_noticed():
    iris = load("iris")
    features = iris.train_inputs.copy()
    features[17, 2] = math.inf
    plan = make_plan(
        Config(optimizer=OptimizerConfig(batch_size=120)), dataclasses.replace(iris, train_inputs=features)
    )
    with pytest.raises(FloatingPointError, match=r"in epoch 1, by step 1: .* values in the data that are not finite"):
        list(diverging(plan, model=MLP(3, hidden=(4,))))


def test_a_plan_from_a_configuration(blobs):
    options = OptimizerConfig(epochs=4, batch_size=12)
    plan = make_plan(Config(optimizer=options, run=RunConfig(seed=5)), blobs)
    assert isinstance(plan.model, CNN)
    assert plan.model.num_classes == 3
    assert (plan.epochs, plan.batch_size, plan.seed) == (4, 12, 5)
    assert (plan.steps_per_epoch, plan.left_out) == (50 // 12, 50 % 12)
    for part, inputs, labels in [
        (plan.train, blobs.train_inputs, blobs.train_labels),
        (plan.test, blobs.test_inputs, blobs.test_labels),
    ]:
        assert (part.inputs.dtype, part.labels.dtype) == (jnp.uint8, jnp.int32)
        np.testing.assert_array_equal(part.inputs, inputs)
        np.testing.assert_array_equal(part.labels, labels)


def test_the_epochs_of_a_dataset_are_its_own_by_default():
    assert {"auto", *DATASETS} == set(NAMES) == set(get_args(DatasetName))
    assert make_plan(Config(), load("iris")).epochs == DATASETS["iris"].epochs
    assert make_plan(Config(optimizer=OptimizerConfig(epochs=2)), load("iris")).epochs == 2


def test_the_schedule_of_a_plan_ends_with_its_last_step(blobs):
    """Cosine over 2 epochs of 4 steps: 8 steps down from the learning rate."""
    options = OptimizerConfig(epochs=2, batch_size=12, optimizer="adam", learning_rate=0.5, schedule="cosine")
    tx = make_plan(Config(optimizer=options), blobs).tx
    state, taken = tx.init(jnp.ones(())), []
    for _ in range(8):
        updates, state = tx.update(jnp.ones(()), state)
        taken.append(-np.asarray(updates))
    assert_close(
        np.asarray(taken), 0.25 * (1 + np.cos(np.pi * np.arange(8) / 8)), condition=50, size=0.5, dtype="float32"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"--epochs must be positive and finite; got 0"),
        ({"epochs": -0.5}, r"--epochs must be positive and finite; got -0\.5"),
        ({"batch_size": 1}, r"at least 2: batch normalization needs more than one value; got 1"),
        ({"batch_size": 0}, r"--batch-size must be at least 2.* got 0$"),
        ({"batch_size": 51}, r"--batch-size must be at most 50, the training examples of blobs; got 51$"),
        ({"learning_rate": 0.0}, r"--learning-rate must be positive and finite; got 0\.0"),
        ({"learning_rate": -1e-3}, r"--learning-rate must be positive and finite; got -0\.001"),
        ({"learning_rate": math.inf}, r"--learning-rate must be positive and finite; got inf"),
        ({"learning_rate": math.nan}, r"--learning-rate must be positive and finite; got nan"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(blobs, options, message):
    config = Config(optimizer=OptimizerConfig(**{"epochs": 1, "batch_size": 8, **options}))
    with pytest.raises(UsageError, match=message):  # noqa: PT012  (one is seen when the data are)
        check(config)
        make_plan(config, blobs)


def test_the_smallest_and_the_largest_batch_are_allowed(blobs):
    for size, steps in [(2, 25), (50, 1)]:
        plan = make_plan(Config(optimizer=OptimizerConfig(epochs=1, batch_size=size)), blobs)
        assert (plan.steps_per_epoch, plan.left_out) == (steps, 0)
