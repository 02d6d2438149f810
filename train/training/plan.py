"""The plan of a run: its splits, network and optimizer, checked against each other."""

import dataclasses
from typing import NamedTuple, TypeVar, cast

import jax
import numpy as np
import optax

from train.config.checks import check_ghost_batch
from train.config.datasets import DATASETS, Recipe
from train.config.sections import Config, ModelConfig, OptimizerConfig
from train.data import Dataset
from train.host.errors import UsageError
from train.network.build import build, network_of
from train.network.models import CNN, MLP
from train.training.devices import ONE, Devices, check_batch, share
from train.training.optimizer import optimizer
from train.training.step import PLAIN_STEP, Examples, StepOptions

MOST_STEPS = 2**31 - 1
VALIDATION_SEED = 0  # of the split: the same for every run, so that runs compare

Section = TypeVar("Section", ModelConfig, OptimizerConfig)


class Splits(NamedTuple):
    """The splits of a dataset, on the devices."""

    train: Examples
    validation: Examples | None
    test: Examples


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of a run: what is trained, on which data, and for how long."""

    model: CNN | MLP
    tx: optax.GradientTransformation
    train: Examples
    test: Examples
    epochs: float
    batch_size: int
    seed: int
    validation: Examples | None = None
    options: StepOptions = PLAIN_STEP
    devices: Devices = ONE

    @property
    def steps_per_epoch(self) -> int:
        """The number of full batches in the training set."""
        return self.train.labels.size // self.batch_size

    @property
    def steps(self) -> int:
        """The number of steps of the whole run."""
        return steps_of(self.epochs, self.steps_per_epoch)

    @property
    def last_epoch(self) -> int:
        """The number of the last epoch, which may end early."""
        return -(-self.steps // self.steps_per_epoch)

    def steps_in(self, epoch: int) -> int:
        """The number of steps of an epoch; epochs count from 1."""
        return min(self.steps_per_epoch, self.steps - (epoch - 1) * self.steps_per_epoch)

    @property
    def left_out(self) -> int:
        """The number of examples that each epoch drops."""
        return self.train.labels.size % self.batch_size


def resolve(config: Config, dataset: Dataset, devices: Devices = ONE) -> Config:
    """Fill in the options that a configuration leaves to the dataset and the devices.

    Raises:
        UsageError: the shards of a batch cannot be normalized as requested.

    """
    norm, model, recipe = config.norm, config.model, DATASETS.get(dataset.name, Recipe())
    if network_of(model, dataset.train_inputs.shape[1:]) != "cnn":
        recipe = recipe._replace(channels=None)
    options = _filled(config.optimizer, recipe)
    if config.run.resume is None:  # a run that was started without these options continues without them
        model = _filled(model, recipe)
    if norm.norm_scope == "device" and config.run.resume is None:  # a resumed run keeps its number
        ghost_batch = share(cast(int, options.batch_size), devices.count, norm.norm_ghost_batch)
        norm = dataclasses.replace(norm, norm_ghost_batch=ghost_batch)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, dataset=dataset.name),
        model=model,
        norm=norm,
        optimizer=options,
    )


def _filled(section: Section, recipe: Recipe) -> Section:
    """A section of a configuration, with the recipe's values for the options that were left open."""
    own = {name: value for name, value in recipe._asdict().items() if getattr(section, name, name) in (None, "auto")}
    return dataclasses.replace(section, **own)


def make_plan(config: Config, dataset: Dataset, devices: Devices = ONE) -> Plan:
    """Put the data on the devices, and build the network and the optimizer.

    Raises:
        UsageError: the options do not fit each other or the training set.

    """
    config = resolve(config, dataset, devices)
    options = config.optimizer
    epochs, batch_size = cast(float, options.epochs), cast(int, options.batch_size)
    parts = splits(dataset, config.data.validation, devices)
    if batch_size > parts.train.labels.size:
        raise UsageError(
            f"--batch-size must be at most {parts.train.labels.size}, the training examples of {dataset.name}; "
            f"got {batch_size}"
        )
    check_ghost_batch(config.norm.norm_ghost_batch, batch_size)
    check_batch(batch_size, parts.train.labels.size, devices.count, jax.process_count())
    per_epoch = parts.train.labels.size // batch_size
    steps = steps_of(epochs, per_epoch)
    if steps > MOST_STEPS:
        raise UsageError(f"--epochs must be at most {MOST_STEPS // per_epoch:,}: steps are counted in 32 bits")
    shape, classes = dataset.train_inputs.shape[1:], len(dataset.class_names)
    return Plan(
        model=build(config, shape, classes, jax.default_backend(), steps),
        tx=optimizer(options, steps),
        train=parts.train,
        test=parts.test,
        epochs=int(epochs) if float(epochs).is_integer() else epochs,
        batch_size=batch_size,
        seed=config.run.seed,
        validation=parts.validation,
        options=StepOptions(options.label_smoothing, config.run.seed),
        devices=devices,
    )


def steps_of(epochs: float, steps_per_epoch: int) -> int:
    """The number of steps in this many epochs, at least one.

    Example:
        >>> steps_of(2, 937), steps_of(0.5, 937), steps_of(1e-9, 937)
        (1874, 468, 1)

    """
    return max(round(epochs * steps_per_epoch), 1)


def splits(dataset: Dataset, validation: float, devices: Devices = ONE) -> Splits:
    """Split a dataset: hold out a fraction of the training set, always the same examples.

    Raises:
        UsageError: the fraction holds out no example.

    """
    examples = len(dataset.train_labels)
    count = round(validation * examples)
    if validation and not count:
        raise UsageError(f"--validation {validation:g} of {examples} training examples holds out no example: raise it")
    test = _put(devices, dataset.test_inputs, dataset.test_labels)
    if not count:
        return Splits(_put(devices, dataset.train_inputs, dataset.train_labels), None, test)
    order = np.random.default_rng(VALIDATION_SEED).permutation(examples)
    rest, held = (
        _put(devices, dataset.train_inputs[chosen], dataset.train_labels[chosen])
        for chosen in (np.sort(order[count:]), np.sort(order[:count]))
    )
    return Splits(rest, held, test)


def _put(devices: Devices, inputs: np.ndarray, labels: np.ndarray) -> Examples:
    return Examples(devices.put(inputs), devices.put(labels))
