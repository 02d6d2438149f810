"""What a person sees while a run goes on: a bar in a terminal, plain lines anywhere else."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from train.config.sections import Config
from train.data import Dataset
from train.host.console import WithBar, say
from train.host.machine import processors
from train.host.words import count
from train.network.summary import Layer
from train.runs.keeping import best
from train.training.loop import Epoch, Progress
from train.training.plan import Plan

LEAST_BAR = 12  # characters; what does not fit beside them is left out
OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam", "adamw": "AdamW"}


def print_start(console: Console, config: Config, dataset: Dataset, plan: Plan, layers: Iterable[Layer]) -> None:
    """The run in short, and the network."""
    examples, tests = plan.train.labels.size, count(plan.test.labels.size, "test example")
    held_out = f", {plan.validation.labels.size:,} validation" if plan.validation else ""
    options = config.optimizer
    lines = {
        "device": describe_devices(plan),
        "dataset": f"{dataset.name} ({dataset.source}): {examples:,} training{held_out} and {tests}",
        "optimizer": f"{OPTIMIZERS[options.optimizer]}, learning rate {options.learning_rate:g}, {options.schedule}",
        "norm": describe_norm(config),
        "training": f"{count(plan.epochs, 'epoch')} of {count(plan.steps_per_epoch, 'step')} of {plan.batch_size}, "
        f"seed {plan.seed}",
    }
    if plan.left_out:
        lines["left out"] = f"{count(plan.left_out, 'example')} of each epoch, less than a batch: other ones each time"
    for name, text in lines.items():
        say(console, f"{name:>9}  {text}")
    if dataset.note:
        say(console, f"{'note':>9}  {dataset.note}")
    console.print(_network_table(layers))


def describe_devices(plan: Plan) -> str:
    """What computes, and how much of a batch each does."""
    device, count, processes = jax.devices()[0], plan.devices.count, jax.process_count()
    versions = f"{processors()}, jax {jax.__version__}"
    if count == 1:
        return device.device_kind + versions
    of_processes = f" in {processes} processes" if processes > 1 else ""
    each = f"{plan.batch_size // count} of a batch on each"
    return f"{count} devices{of_processes} ({device.device_kind}), {each}{versions}"


def describe_norm(config: Config) -> str:
    """The norm in short; what is as usual goes without saying."""
    norm, placement = config.norm, config.model.norm_placement
    if placement == "none":
        return "none"
    parts = [f"momentum {norm.norm_momentum:g}"] if norm.norm_average != "cumulative" else []
    parts += [norm.norm_average] if norm.norm_average != "constant" else []
    parts += [f"epsilon {norm.norm_epsilon:g}"]
    parts += ["unbiased"] if norm.norm_unbiased else []
    parts += [f"ghost batches of {norm.norm_ghost_batch}"] if norm.norm_ghost_batch else []
    parts += [f"renorm {norm.norm_renorm}"] if norm.norm_renorm != "off" else []
    parts += ["after the activation"] if placement == "after" else []
    return ", ".join(parts)


def _network_table(layers: Iterable[Layer]) -> Table:
    table = Table(show_footer=True)
    layers = list(layers)
    trainable, non_trainable = sum(layer.trainable for layer in layers), sum(layer.non_trainable for layer in layers)
    table.add_column("layer", "total")
    table.add_column("kind")
    table.add_column("output shape", justify="right")
    table.add_column("parameters", f"{trainable + non_trainable:,}", justify="right")
    table.add_column("trainable", f"{trainable:,}", justify="right")
    table.add_column("not trainable", f"{non_trainable:,}", justify="right")
    for layer in layers:
        shape = "x".join(str(size) for size in layer.output_shape)
        counts = (layer.trainable + layer.non_trainable, layer.trainable, layer.non_trainable)
        table.add_row(layer.name, layer.kind, shape, *(f"{count:,}" for count in counts))
    return table


class Monitor(WithBar):
    """Shows the progress of a run: a context manager that is told of everything that `train.training.loop.run` yields.

    In a terminal a bar; elsewhere a line for each epoch, and in between where nothing was said for a while.

    Args:
        console: where to.
        plan: the run's.
        done: the steps that were done before.
        clock: seconds.

    """

    def __init__(
        self, console: Console, plan: Plan, done: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console, clock)
        self._plan, self._before = plan, done
        self._steps = plan.epochs * plan.steps_per_epoch
        self._task = self._bar.add_task("the first steps", total=self._steps, completed=done, left="")

    def show(self, event: Progress | Epoch) -> None:
        """Something happened."""
        if isinstance(event, Epoch):
            self.epoch(event)
        else:
            self.advance(event)

    def advance(self, done: Progress) -> None:
        """A part of an epoch has been done."""
        left = self._left(done.step - self._before, self._steps - done.step)
        parts = [
            self._epoch(done),
            f"step {done.step:>{len(f'{self._steps:,}')},}/{self._steps:,}",
            f"loss {done.loss:.4f}",
            f"accuracy {done.accuracy:7.2%}",
            f"{done.images_per_second:,.0f} images/s",
        ]
        self._say_now_and_then("  ".join([*parts, left]))
        while len("  ".join(parts)) > self._console.width - LEAST_BAR - len(left):
            parts.pop()
        self._bar.update(self._task, completed=done.step, description="  ".join(parts), left=left)

    def epoch(self, done: Epoch) -> None:
        """An epoch has been done and evaluated."""
        self._say(
            f"{self._epoch(done)}  train loss {done.train_loss:.4f} accuracy {done.train_accuracy:.2%}  "
            + _held_out(done)
            + f"test loss {done.test_loss:.4f} accuracy {done.test_accuracy:.2%}  "
            f"{done.images_per_second:,.0f} images/s  {done.train_seconds:.1f} s",
        )

    def _epoch(self, done: Progress | Epoch) -> str:
        return f"epoch {done.epoch:>{len(str(self._plan.epochs))}}/{self._plan.epochs}"


def _held_out(done: Epoch) -> str:
    if done.validation_accuracy is None:
        return ""
    return f"validation loss {done.validation_loss:.4f} accuracy {done.validation_accuracy:.2%}  "


def print_end(
    console: Console, epochs: Sequence[Epoch], plan: Plan, dataset: Dataset, compile_seconds: float, folder: Path
) -> None:
    """What came of the run."""
    last, first = epochs[-1], best(epochs)
    correct = round(last.test_accuracy * len(dataset.test_labels))
    if last.epoch < plan.epochs:
        say(console, f"\nstopped after epoch {last.epoch} of {plan.epochs}: the validation accuracy rises no more")
    say(
        console,
        f"\ntest accuracy {last.test_accuracy:.2%} of {dataset.name} "
        f"({correct:,} of {len(dataset.test_labels):,} right, loss {last.test_loss:.4f}) after "
        f"{last.train_seconds:.1f} s of training (and {compile_seconds:.1f} s of compiling)",
    )
    if first is not None:
        say(console, f"best validation accuracy {first.validation_accuracy:.2%} after epoch {first.epoch}: kept apart")
    say(console, f"results in {folder}")
