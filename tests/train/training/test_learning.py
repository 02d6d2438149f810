"""It learns: each dataset to a level that a broken step, norm or schedule does not reach."""

import math

from train.config.sections import Config, OptimizerConfig
from train.training.plan import make_plan


def least_loss(classes):
    """The loss, in nats, of a network that is right about every example and as sure as smoothed labels ask for."""
    return -math.log(1 - OptimizerConfig().label_smoothing * (1 - 1 / classes))


def test_iris_by_its_default_recipe(iris_run):
    last = iris_run.metrics[-1]
    assert last["dataset"] == "iris"
    assert last["test_accuracy"] >= 0.9
    assert last["train_loss"] < least_loss(3) + 0.1


def test_two_epochs_of_digits(digits_run):
    """Guessing costs ln 10 = 2.30 nats and is right once in ten."""
    last = digits_run.metrics[-1]
    assert last["train_loss"] < least_loss(10) + 0.5
    assert last["test_loss"] < least_loss(10) + 0.5
    assert last["test_accuracy"] > 0.85


def test_sixty_steps_of_mnist(real_mnist, record):
    """Each of 6,000 examples once; and the running statistics serve: the test set does as well as the training set."""
    config = Config(optimizer=OptimizerConfig(epochs=1, batch_size=100))
    (epoch,) = record(make_plan(config, real_mnist)).epochs
    assert epoch.step == 60
    assert epoch.test_accuracy > 0.9
    assert epoch.test_loss < 0.4
