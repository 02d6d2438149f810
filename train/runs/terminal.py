"""The terminal output of a run: a progress bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

import jax
from rich import box
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

MOST_LINES = 20  # of epochs that a run prints; with more epochs, one of every so many
SETS = ("train", "validation", "test")
OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam", "adamw": "AdamW"}


def print_start(console: Console, config: Config, dataset: Dataset, plan: Plan, layers: Iterable[Layer]) -> None:
    """Print a summary of the run, and the operations of the network."""
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
        incomplete = "an incomplete batch"
        lines["dropped"] = f"the last {count(plan.left_out, 'example')} of each shuffled epoch ({incomplete})"
    for name, text in lines.items():
        say(console, f"{name:>9}  {text}")
    if dataset.note:
        say(console, f"{'note':>9}  {dataset.note}")
    console.print(_network_table(layers))


def describe_devices(plan: Plan) -> str:
    """The devices, and how much of a batch each computes."""
    device, count, processes = jax.devices()[0], plan.devices.count, jax.process_count()
    versions = f"{processors()}, jax {jax.__version__}"
    if count == 1:
        return device.device_kind + versions
    of_processes = f" in {processes} processes" if processes > 1 else ""
    each = f"{plan.batch_size // count} of a batch on each"
    return f"{count} devices{of_processes} ({device.device_kind}), {each}{versions}"


def describe_norm(config: Config) -> str:
    """The norm in short: momentum and epsilon, and all options that differ from the default."""
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
    table = Table(box=box.SIMPLE, show_footer=True, pad_edge=False, show_edge=False)
    layers = list(layers)
    trainable, non_trainable = sum(layer.trainable for layer in layers), sum(layer.non_trainable for layer in layers)
    table.add_column("layer", "total")
    table.add_column("operation")
    table.add_column("output", justify="right")
    table.add_column("trainable", f"{trainable:,}", justify="right")
    table.add_column("statistics", f"{non_trainable:,}", justify="right")
    for layer in layers:
        shape = "×".join(str(size) for size in layer.output_shape)
        counts = (layer.trainable, layer.non_trainable) if layer.name else ()
        table.add_row(layer.name, layer.kind, shape, *(f"{count:,}" for count in counts))
    return table


class Monitor(WithBar):
    """Shows the progress of a run: a context manager that is told of everything that `train.training.loop.run` yields.

    In a terminal it shows a progress bar. Elsewhere it prints a line when nothing was printed for a while. In both it
    prints a line for each epoch, or for one of every so many, and always for the last.

    Args:
        console: where to print.
        plan: the plan of the run.
        done: the steps done before this start.
        clock: returns seconds.

    """

    def __init__(
        self, console: Console, plan: Plan, done: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console, clock)
        self._plan, self._before = plan, done
        self._steps = plan.steps
        self._every = -(-plan.last_epoch // MOST_LINES)
        self._unprinted: Epoch | None = None
        self._unit = f"{'images' if plan.train.inputs.ndim == 4 else 'examples'}/s"
        self._task = self._add_task("the first steps", self._steps, done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._unprinted is not None and kind is None:  # the run stopped early
            self._print(self._unprinted)
        super().__exit__(kind, error, trace)

    def show(self, event: Progress | Epoch) -> None:
        """Show an event."""
        if isinstance(event, Epoch):
            self.epoch(event)
        else:
            self.advance(event)

    def advance(self, done: Progress) -> None:
        """Show that a part of an epoch is done."""
        left = self._left(done.step - self._before, self._steps - done.step)
        epoch, loss, accuracy = self._epoch(done), f"loss {done.loss:.4f}", f"accuracy {done.accuracy:7.2%}"
        step = f"step {done.step:>{len(f'{self._steps:,}')},}/{self._steps:,}"
        speed = f"{done.images_per_second:,.0f} {self._unit}"
        self._say_now_and_then("  ".join([epoch, step, loss, accuracy, speed, left]))
        forms = [(epoch, step, loss, accuracy, speed), (epoch, step, loss, accuracy), (epoch, loss, accuracy)]
        self._update(self._task, done.step, ["  ".join(form) for form in forms], left)

    def epoch(self, done: Epoch) -> None:
        """Show that an epoch is done and evaluated."""
        if done.epoch % self._every and done.epoch < self._plan.last_epoch:
            self._unprinted = done
        else:
            self._print(done)

    def _print(self, done: Epoch) -> None:
        self._unprinted = None
        lines = self._lines(done)
        room = self._console.width if self._console.is_terminal else len(lines[0])
        self._say(next((line for line in lines if len(line) <= room), lines[-1]))

    def _lines(self, done: Epoch) -> list[str]:
        """The line of an epoch in forms of decreasing length."""
        sets = [(name, getattr(done, f"{name}_loss"), getattr(done, f"{name}_accuracy")) for name in SETS]
        sets = [each for each in sets if each[1] is not None]
        full = [f"{name} loss {loss:.4f} accuracy {accuracy:.2%}" for name, loss, accuracy in sets]
        short = [f"{name} {loss:.4f} {accuracy:.2%}" for name, loss, accuracy in sets]
        speed, seconds = f"{done.images_per_second:,.0f} {self._unit}", f"{done.train_seconds:.1f} s"
        forms = [[*full, speed, seconds], [*full, seconds], full, short, short[1:]]
        return ["  ".join([self._epoch(done), *form]) for form in forms]

    def _epoch(self, done: Progress | Epoch) -> str:
        last = self._plan.last_epoch
        return f"epoch {done.epoch:>{len(str(last))}}/{last}"


def print_result(
    console: Console, epochs: Sequence[Epoch], plan: Plan, dataset: Dataset, compile_seconds: float
) -> None:
    """Print the result of a run, before its pictures are drawn."""
    last, first = epochs[-1], best(epochs)
    correct = round(last.test_accuracy * len(dataset.test_labels))
    if last.epoch < plan.last_epoch:
        ended = f"stopped after epoch {last.epoch} of {plan.last_epoch}"
        say(console, f"\n{ended}: the validation accuracy no longer improves")
    say(
        console,
        f"\ntest accuracy {last.test_accuracy:.2%} of {dataset.name} "
        f"({correct:,} of {len(dataset.test_labels):,} right, loss {last.test_loss:.4f}) after "
        f"{last.train_seconds:.1f} s of training (and {compile_seconds:.1f} s of compilation)",
    )
    if first is not None:
        say(
            console,
            f"best validation accuracy {first.validation_accuracy:.2%} after epoch {first.epoch} (saved separately)",
        )
