"""A run before its first step: the data in their splits, the network, the optimiser, and whether they fit."""

import dataclasses
import math
from typing import NamedTuple, cast

import jax
import numpy as np
import optax

from train.config.sections import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS, Config, DatasetName
from train.data import Dataset
from train.network.build import build
from train.network.models import CNN, MLP
from train.training.devices import ONE, Devices, check_batch, share
from train.training.optimizer import optimizer
from train.training.step import PLAIN_STEP, Batches, StepOptions

MOST_STEPS = 2**31 - 1
VALIDATION_SEED = 0  # of the split: the same for every run, so that runs compare


class Splits(NamedTuple):
    """The parts of a dataset, on the device."""

    train: Batches
    validation: Batches | None
    test: Batches


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run before its first step: what is trained on what, for how long."""

    model: CNN | MLP
    tx: optax.GradientTransformation
    train: Batches
    test: Batches
    epochs: int
    batch_size: int
    seed: int
    validation: Batches | None = None
    options: StepOptions = PLAIN_STEP
    devices: Devices = ONE

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training set."""
        return self.train.labels.size // self.batch_size

    @property
    def left_out(self) -> int:
        """Examples that sit out an epoch."""
        return self.train.labels.size % self.batch_size


def resolve(config: Config, dataset: Dataset, devices: Devices = ONE) -> Config:
    """The configuration with what it leaves to the dataset and the devices filled in.

    Raises:
        ValueError: the devices' shares of a batch cannot be normalised as it says.

    """
    options, norm = config.optimizer, config.norm
    batch_size = DEFAULT_BATCH_SIZE[dataset.name] if options.batch_size is None else options.batch_size
    if norm.norm_scope == "device" and config.run.resume is None:  # a resumed run goes on as it began
        norm = dataclasses.replace(norm, norm_ghost_batch=share(batch_size, devices.count, norm.norm_ghost_batch))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, dataset=cast(DatasetName, dataset.name)),
        norm=norm,
        optimizer=dataclasses.replace(
            options,
            epochs=DEFAULT_EPOCHS[dataset.name] if options.epochs is None else options.epochs,
            batch_size=batch_size,
        ),
    )


def make_plan(config: Config, dataset: Dataset, devices: Devices = ONE) -> Plan:
    """Puts the data on the devices and builds the network and the optimiser.

    Raises:
        ValueError: there is nothing to do, or the options do not fit each other or the training set.

    """
    config = resolve(config, dataset, devices)
    options = config.optimizer
    epochs, batch_size = cast(int, options.epochs), cast(int, options.batch_size)
    parts = splits(dataset, config.data.validation, devices)
    check(config, epochs, batch_size, parts.train.labels.size, dataset.name)
    check_batch(batch_size, parts.train.labels.size, devices.count, jax.process_count())
    steps = epochs * (parts.train.labels.size // batch_size)
    if steps > MOST_STEPS:
        raise ValueError(f"--epochs must be at most {MOST_STEPS * epochs // steps:,}: steps are counted in 32 bits")
    shape, classes = dataset.train_inputs.shape[1:], len(dataset.class_names)
    return Plan(
        model=build(config, shape, classes, jax.default_backend(), steps),
        tx=optimizer(options, steps),
        train=parts.train,
        test=parts.test,
        epochs=epochs,
        batch_size=batch_size,
        seed=config.run.seed,
        validation=parts.validation,
        options=StepOptions(options.label_smoothing, config.run.seed),
        devices=devices,
    )


def splits(dataset: Dataset, validation: float, devices: Devices = ONE) -> Splits:
    """The test set, and the training set without a share of it, and that share: the same examples at any time.

    Raises:
        ValueError: the share is none, or of no example.

    """
    if not 0 <= validation < 1:
        raise ValueError(f"--validation must be at least 0 and below 1; got {validation:g}")
    examples = len(dataset.train_labels)
    count = round(validation * examples)
    if validation and not count:
        raise ValueError(f"--validation {validation:g} of {examples} training examples is none: raise it")
    test = _put(devices, dataset.test_inputs, dataset.test_labels)
    if not count:
        return Splits(_put(devices, dataset.train_inputs, dataset.train_labels), None, test)
    order = np.random.default_rng(VALIDATION_SEED).permutation(examples)
    rest, held = (
        _put(devices, dataset.train_inputs[chosen], dataset.train_labels[chosen])
        for chosen in (np.sort(order[count:]), np.sort(order[:count]))
    )
    return Splits(rest, held, test)


def _put(devices: Devices, inputs: np.ndarray, labels: np.ndarray) -> Batches:
    return Batches(devices.put(inputs), devices.put(labels))


def check(config: Config, epochs: int, batch_size: int, examples: int, name: str) -> None:
    """Raises a ValueError where an option is out of its range."""
    options, seed, ghost = config.optimizer, config.run.seed, config.norm.norm_ghost_batch
    if epochs < 1:
        raise ValueError(f"--epochs must be at least 1; got {epochs}")
    if not 2 <= batch_size <= examples:
        raise ValueError(
            f"--batch-size must be from 2 (batch normalization needs more than one value) to {examples}, "
            f"the training examples of {name}; got {batch_size}"
        )
    if ghost is not None and (ghost < 2 or batch_size % ghost):
        raise ValueError(f"--norm-ghost-batch must be at least 2 and divide the batch of {batch_size}; got {ghost}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be from 0 to {2**32 - 1}; got {seed}")
    for option in ("learning_rate", "adam_epsilon", "clip_norm", "clip_value"):
        value = getattr(options, option)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"--{option.replace('_', '-')} must be positive and finite; got {value}")
    for option in ("warmup", "sgd_momentum", "label_smoothing"):
        if not 0 <= getattr(options, option) < 1:
            raise ValueError(
                f"--{option.replace('_', '-')} must be at least 0 and below 1; got {getattr(options, option)}"
            )
    if not (options.weight_decay >= 0 and math.isfinite(options.weight_decay)):
        raise ValueError(f"--weight-decay must be at least 0 and finite; got {options.weight_decay}")
