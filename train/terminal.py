"""What a person sees while a run goes on: a bar in a terminal, plain lines anywhere else."""

import os
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import jax
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from train.config import Config
from train.data import Dataset
from train.loop import Epoch, Plan, Progress
from train.summary import Layer, count


def print_start(console: Console, config: Config, dataset: Dataset, plan: Plan, layers: Iterable[Layer]) -> None:
    """The run in short, and the network."""
    device = jax.devices()[0]
    processors = f", {os.cpu_count()} processors" if device.platform == "cpu" else ""
    examples, tests = len(dataset.train_labels), len(dataset.test_labels)
    options = config.optimizer
    lines = {
        "device": f"{device.device_kind}{processors}, jax {jax.__version__}",
        "dataset": f"{dataset.name} ({dataset.source}): {examples:,} training and {tests:,} test examples",
        "optimizer": f"Adam, learning rate {options.learning_rate:g}, {options.schedule}",
        "norm": f"momentum {config.norm.norm_momentum:g}, epsilon {config.norm.norm_epsilon:g}",
        "training": f"{count(plan.epochs, 'epoch')} of {count(plan.steps_per_epoch, 'step')} of {plan.batch_size}, "
        f"seed {plan.seed}",
    }
    if plan.left_out:
        lines["left out"] = f"{plan.left_out} examples of each epoch, which fill no batch: other ones each time"
    for name, text in lines.items():
        _say(console, f"{name:>9}  {text}")
    if dataset.note:
        _say(console, f"{'note':>9}  {dataset.note}")
    console.print(_network_table(layers))


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


class Monitor:
    """Shows the progress of a run: a context manager that is told of everything that `train.loop.run` yields."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._bar = ProgressBar(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("step {task.completed}/{task.total}"),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        steps = plan.epochs * plan.steps_per_epoch
        self._task = self._bar.add_task("training", total=steps, epoch=1, epochs=plan.epochs, text="")

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def advance(self, done: Progress) -> None:
        """A part of an epoch has been done."""
        text = f"loss {done.loss:.4f}  accuracy {done.accuracy:.2%}  {done.images_per_second:,.0f} images/s"
        self._bar.update(self._task, completed=done.step, epoch=done.epoch, text=text)

    def epoch(self, done: Epoch) -> None:
        """An epoch has been done and evaluated."""
        _say(
            self._console,
            f"epoch {done.epoch:>{len(str(self._plan.epochs))}}/{self._plan.epochs}  "
            f"train loss {done.train_loss:.4f} accuracy {done.train_accuracy:.2%}  "
            f"test loss {done.test_loss:.4f} accuracy {done.test_accuracy:.2%}  "
            f"{done.images_per_second:,.0f} images/s  {done.train_seconds:.1f} s",
        )


def print_end(console: Console, last: Epoch, dataset: Dataset, compile_seconds: float, folder: str) -> None:
    """What came of the run."""
    correct = round(last.test_accuracy * len(dataset.test_labels))
    _say(
        console,
        f"\ntest accuracy {last.test_accuracy:.2%} of {dataset.name} "
        f"({correct:,} of {len(dataset.test_labels):,} right, loss {last.test_loss:.4f}) after "
        f"{last.train_seconds:.1f} s of training (and {compile_seconds:.1f} s of compiling)\n"
        f"results in {folder}",
    )


def _say(console: Console, text: str) -> None:
    """Prints text as it is: names and notes may hold what would be markup."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
