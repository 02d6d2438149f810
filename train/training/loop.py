"""The training loop: epochs of steps on the device, each followed by an evaluation of every test example.

The last epoch may be a part of one.
"""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from train.training.devices import ONE, Devices
from train.training.plan import Plan
from train.training.step import Examples, TrainState, evaluate, init_state, train_steps

REPORTS_PER_EPOCH = 20
EVALUATION_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Progress:
    """A report within an epoch; averages are over the examples since the last report."""

    epoch: int
    step: int  # of the whole run
    loss: float
    accuracy: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The record of an epoch: averages over its training batches, and over the other sets after it."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None  # None where nothing is held out
    validation_accuracy: float | None
    test_loss: float
    test_accuracy: float
    images_per_second: float
    train_seconds: float  # in training steps since the start; compilation and evaluation not included


@dataclasses.dataclass(frozen=True)
class Position:
    """The position of a run: together with its state, everything that the loop needs to continue."""

    epoch: int = 1  # the one under way
    epoch_step: int = 0  # how many of its steps are done
    epoch_seconds: float = 0.0  # in its training steps
    seconds: float = 0.0  # in those of the whole run
    reports: tuple[tuple[float, int, int], ...] = ()  # its summed losses, correct and counted examples, by report


class Snapshot(NamedTuple):
    """An event of the loop, with the state after it and the position of that state."""

    event: Progress | Epoch
    state: TrainState
    position: Position


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of a run, and the seconds of compilation."""

    train: Any
    evaluate: Any
    seconds: float
    validate: Any = None


def compile_programs(plan: Plan, state: TrainState) -> Programs:
    """Compile all programs of a run; the shapes of a state are enough."""
    start = time.perf_counter()
    devices, step = plan.devices, jax.ShapeDtypeStruct((), jnp.int32)
    order = jax.ShapeDtypeStruct(plan.train.labels.shape, jnp.int32)
    steps = partial(
        train_steps, plan.model, plan.tx, batch_size=plan.batch_size, options=plan.options, divide=devices.divide
    )
    programs = (
        devices.jit(steps, donate_argnums=0).lower(state, plan.train, order, (step, step)).compile(),
        compile_evaluation(plan.model, state, plan.test, devices),
    )
    validate = None if plan.validation is None else compile_evaluation(plan.model, state, plan.validation, devices)
    return Programs(*programs, seconds=time.perf_counter() - start, validate=validate)


def compile_evaluation(model: nn.Module, state: TrainState, data: Examples, devices: Devices = ONE) -> Any:  # noqa: ANN401
    """Compile the program that evaluates a state on a split: (state, data) to metrics."""
    batch_size = devices.round_up(min(EVALUATION_BATCH, data.labels.size))
    program = partial(evaluate, model, batch_size=batch_size, divide=devices.divide)
    return devices.jit(program).lower(state, data).compile()


def initial_state(plan: Plan) -> TrainState:
    """The state before the first step; it depends on the seed only."""
    return initializer(plan)(plan.train.inputs[:1])


def initializer(plan: Plan) -> Any:  # noqa: ANN401  (a jitted function)
    """The program that makes the initial state from one example; its `eval_shape` gives the state's shapes."""
    return plan.devices.jit(partial(init_state, plan.model, plan.tx, seed=plan.seed), once=True)


def run(
    plan: Plan,
    programs: Programs,
    state: TrainState,
    position: Position = Position(),
) -> Iterator[Snapshot]:
    """Train, and yield each event with the state after it.

    The next step reuses the memory of the state that was yielded last.

    Args:
        plan: the plan of the run.
        programs: the compiled programs of the plan.
        state: the initial state; its memory is reused.
        position: its position. To continue an earlier run exactly, pass what it yielded together with the state.

    Raises:
        FloatingPointError: the loss is no longer finite.

    """
    while position.epoch <= plan.last_epoch:
        order = epoch_order(plan, position.epoch)
        for span in spans(plan.steps_in(position.epoch)):
            if span[0] < position.epoch_step:  # already done: a run stops between spans only
                continue
            began = time.perf_counter()
            state, metrics = programs.train(state, plan.train, order, tuple(np.int32(i) for i in span))
            metrics = jax.block_until_ready(metrics)
            elapsed = time.perf_counter() - began
            step = (position.epoch - 1) * plan.steps_per_epoch + span[1]
            report = (float(metrics.loss), int(metrics.correct), int(metrics.count))
            loss, accuracy = _averages([report])
            _check_finite("loss", loss, position.epoch, step)
            position = Position(
                epoch=position.epoch,
                epoch_step=span[1],
                epoch_seconds=position.epoch_seconds + elapsed,
                seconds=position.seconds + elapsed,
                reports=(*position.reports, report),
            )
            yield Snapshot(Progress(position.epoch, step, loss, accuracy, report[2] / elapsed), state, position)
        record = _record(plan, programs, state, position)
        position = Position(epoch=position.epoch + 1, seconds=position.seconds)
        yield Snapshot(record, state, position)


def _record(plan: Plan, programs: Programs, state: TrainState, position: Position) -> Epoch:
    """Evaluate an epoch whose steps are done, and return its record."""
    steps = plan.steps_in(position.epoch)
    step = (position.epoch - 1) * plan.steps_per_epoch + steps
    train, test = _averages(position.reports), loss_and_accuracy(programs.evaluate, state, plan.test)
    _check_finite("test loss", test[0], position.epoch, step)
    held = (None, None) if plan.validation is None else loss_and_accuracy(programs.validate, state, plan.validation)
    if held[0] is not None:
        _check_finite("validation loss", held[0], position.epoch, step)
    rate = steps * plan.batch_size / position.epoch_seconds
    return Epoch(position.epoch, step, *train, *held, *test, rate, position.seconds)


def loss_and_accuracy(evaluation: Any, state: TrainState, data: Examples) -> tuple[float, float]:  # noqa: ANN401
    """Evaluate a state on a split by a compiled program; return the mean loss and the accuracy."""
    metrics = evaluation(state, data)
    return _averages([(float(metrics.loss), int(metrics.correct), int(metrics.count))])


def epoch_order(plan: Plan, epoch: int) -> jax.Array:
    """The order in which an epoch visits the training set; it depends on the seed and the epoch only.

    NumPy needs a millisecond for it; a program would have to be compiled first.
    """
    order = np.random.default_rng((plan.seed, epoch)).permutation(plan.train.labels.size)
    return plan.devices.put(order.astype(np.int32))


def spans(steps: int) -> list[tuple[int, int]]:
    """The steps of an epoch as at most REPORTS_PER_EPOCH spans of equal length, except for the last."""
    length = -(-steps // REPORTS_PER_EPOCH)
    return [(start, min(start + length, steps)) for start in range(0, steps, length)]


def _check_finite(name: str, value: float, epoch: int, step: int) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} became {value} in epoch {epoch}, by step {step}: training has diverged. "
            "Lower --learning-rate, or look for values in the data that are not finite"
        )


def _averages(reports: Sequence[tuple[float, int, int]]) -> tuple[float, float]:
    count = sum(report[2] for report in reports)
    return sum(report[0] for report in reports) / count, sum(report[1] for report in reports) / count
