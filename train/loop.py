"""The training loop: epochs of steps on the device, each followed by an evaluation of every test example."""

import dataclasses
import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from train.config import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS, Config
from train.data import Dataset
from train.models import build
from train.step import (
    Batches,
    Metrics,
    TrainState,
    evaluate,
    init_state,
    optimizer,
    train_steps,
)

REPORTS_PER_EPOCH = 20
EVALUATION_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Progress:
    """What has been done of an epoch: the averages are over the examples since the last report."""

    epoch: int
    step: int  # of the whole run
    loss: float
    accuracy: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The record of an epoch; averages over its training batches, and over the whole test set after it."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    images_per_second: float
    train_seconds: float  # in training steps since the start; compilation and evaluation not included


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run before its first step: what is trained on what, for how long."""

    model: nn.Module
    tx: optax.GradientTransformation
    train: Batches
    test: Batches
    epochs: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training set."""
        return self.train.labels.size // self.batch_size

    @property
    def left_out(self) -> int:
        """Examples that sit out an epoch."""
        return self.train.labels.size % self.batch_size


def make_plan(config: Config, dataset: Dataset) -> Plan:
    """Puts the data on the device and builds the network and the optimiser.

    Raises:
        ValueError: there is nothing to do, or the batch does not fit the training set.

    """
    options = config.optimizer
    epochs = DEFAULT_EPOCHS[dataset.name] if options.epochs is None else options.epochs
    batch_size = DEFAULT_BATCH_SIZE[dataset.name] if options.batch_size is None else options.batch_size
    examples = len(dataset.train_labels)
    if epochs < 1:
        raise ValueError(f"--epochs must be at least 1; got {epochs}")
    if not 2 <= batch_size <= examples:
        raise ValueError(
            f"--batch-size must be from 2 (batch normalization needs more than one value) to {examples}, "
            f"the training examples of {dataset.name}; got {batch_size}"
        )
    if not (options.learning_rate > 0 and math.isfinite(options.learning_rate)):
        raise ValueError(f"--learning-rate must be positive and finite; got {options.learning_rate}")
    if not 0 <= config.run.seed < 2**32:
        raise ValueError(f"--seed must be from 0 to {2**32 - 1}; got {config.run.seed}")
    model = build(config, dataset.train_inputs.shape[1:], len(dataset.class_names), jax.default_backend())
    return Plan(
        model=model,
        tx=optimizer(options, epochs * (examples // batch_size)),
        train=Batches(jnp.asarray(dataset.train_inputs), jnp.asarray(dataset.train_labels)),
        test=Batches(jnp.asarray(dataset.test_inputs), jnp.asarray(dataset.test_labels)),
        epochs=epochs,
        batch_size=batch_size,
        seed=config.run.seed,
    )


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of a run, and how long compiling took."""

    shuffle: Any
    train: Any
    evaluate: Any
    seconds: float


def compile_programs(plan: Plan, state: TrainState) -> Programs:
    """Compiles the programs that the whole run consists of."""
    start = time.perf_counter()
    step = jnp.zeros((), jnp.int32)
    order = jnp.zeros(plan.train.labels.shape, jnp.int32)
    training = jax.jit(partial(train_steps, plan.model, plan.tx, batch_size=plan.batch_size), donate_argnums=0)
    evaluation = jax.jit(partial(evaluate, plan.model, batch_size=min(EVALUATION_BATCH, plan.test.labels.size)))
    programs = (
        jax.jit(partial(epoch_order, plan)).lower(step).compile(),
        training.lower(state, plan.train, order, (step, step)).compile(),
        evaluation.lower(state, plan.test).compile(),
    )
    return Programs(*programs, seconds=time.perf_counter() - start)


def initial_state(plan: Plan) -> TrainState:
    """The state before the first step, from the seed alone."""
    return jax.jit(partial(init_state, plan.model, plan.tx, seed=plan.seed))(plan.train.inputs[:1])


def run(plan: Plan, programs: Programs, state: TrainState) -> Iterator[tuple[Progress | Epoch, TrainState]]:
    """Trains, and yields what happened as it happens, with the state that it led to.

    The state of an earlier yield is gone when the next one arrives: its memory is used again.

    Raises:
        FloatingPointError: the loss is no longer finite.

    """
    seconds = 0.0
    for epoch in range(1, plan.epochs + 1):
        order = programs.shuffle(jnp.int32(epoch))
        reports: list[Metrics] = []
        start = seconds
        for span in spans(plan.steps_per_epoch):
            began = time.perf_counter()
            state, metrics = programs.train(state, plan.train, order, tuple(jnp.int32(i) for i in span))
            metrics = jax.block_until_ready(metrics)
            elapsed = time.perf_counter() - began
            seconds += elapsed
            loss, accuracy = _averages([metrics])
            step = (epoch - 1) * plan.steps_per_epoch + span[1]
            _check_finite("loss", loss, epoch, step)
            reports.append(metrics)
            yield Progress(epoch, step, loss, accuracy, int(metrics.count) / elapsed), state
        train, test = _averages(reports), _averages([programs.evaluate(state, plan.test)])
        _check_finite("test loss", test[0], epoch, epoch * plan.steps_per_epoch)
        rate = plan.steps_per_epoch * plan.batch_size / (seconds - start)
        yield Epoch(epoch, epoch * plan.steps_per_epoch, *train, *test, rate, seconds), state


def epoch_order(plan: Plan, epoch: int | jax.Array) -> jax.Array:
    """The order in which an epoch visits the training set, from the seed and the epoch alone."""
    key = jax.random.fold_in(jax.random.key(plan.seed), epoch)
    return jax.random.permutation(key, plan.train.labels.size).astype(jnp.int32)


def spans(steps: int) -> list[tuple[int, int]]:
    """The steps of an epoch, cut into about REPORTS_PER_EPOCH spans of one length but for the last."""
    length = -(-steps // REPORTS_PER_EPOCH)
    return [(start, min(start + length, steps)) for start in range(0, steps, length)]


def _check_finite(name: str, value: float, epoch: int, step: int) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} became {value} in epoch {epoch}, by step {step}: training has diverged. "
            "Lower --learning-rate, or look for values in the data that are not finite"
        )


def _averages(reports: list[Metrics]) -> tuple[float, float]:
    count = sum(int(m.count) for m in reports)
    return sum(float(m.loss) for m in reports) / count, sum(int(m.correct) for m in reports) / count
