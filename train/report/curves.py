"""curves.png: loss and accuracy over the epochs."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from train.host.words import count
from train.report import style
from train.training.loop import Epoch, Progress

HEIGHT = 4.0
SETS = {"validation": ("validation set", style.VALIDATION, "D--"), "test": ("test set", style.TEST, "o-")}


def write(
    path: Path, dataset: str, progress: Sequence[Progress], epochs: Sequence[Epoch], steps_per_epoch: int
) -> None:
    """Draws loss and accuracy of the training batches, and of the validation and test set after each epoch.

    Args:
        path: of the PNG file.
        dataset: its name, for the title.
        progress: the reports within epochs, in order.
        epochs: the records of the epochs, one or more.
        steps_per_epoch: what the reports' steps are counted by.

    """
    with style.new_figure(path, HEIGHT, title(dataset, epochs[-1])) as figure:
        loss, accuracy = figure.subplots(1, 2)
        batches = [report.step / steps_per_epoch for report in progress]
        loss.plot(batches, [report.loss for report in progress], color=style.TRAINING, label="training batches")
        accuracy.plot(batches, [100 * report.accuracy for report in progress], color=style.TRAINING)
        for name, (label, colour, form) in SETS.items():
            found = [epoch for epoch in epochs if getattr(epoch, f"{name}_loss") is not None]
            if found:
                numbers = [epoch.epoch for epoch in found]
                values = [[getattr(epoch, f"{name}_{measure}") for epoch in found] for measure in ("loss", "accuracy")]
                loss.plot(numbers, values[0], form, color=colour, label=label)
                accuracy.plot(numbers, [100 * value for value in values[1]], form, color=colour)
        lowest = min(epoch.test_accuracy for epoch in epochs)
        loss.set(xlabel="epoch", ylabel="loss: cross-entropy (nats), log scale", yscale="log")
        accuracy.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(max(0, 100 * lowest - 10), 100.5))
        for axes in (loss, accuracy):
            _ticks(axes, epochs[-1].epoch)
        figure.legend(loc="outside lower center", ncols=1 + len(SETS))


def title(dataset: str, last: Epoch) -> str:
    """The finding.

    Example:
        >>> title("mnist", Epoch(2, 9, 0.1, 0.9, None, None, 0.2, 0.9918, 1e3, 1.0))
        'mnist: 99.18% of the test set right after 2 epochs'

    """
    return f"{dataset}: {last.test_accuracy:.2%} of the test set right after {count(last.epoch, 'epoch')}"


def _ticks(axes: Axes, epochs: int) -> None:
    """Whole epochs, from the first step to the last; losses as plain numbers."""
    axes.grid()
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    axes.set_xlim(0, 1.02 * epochs)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
