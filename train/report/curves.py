"""curves.png: loss and accuracy over the epochs."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from train.host.words import count
from train.report import style
from train.training.loop import Epoch, Progress

HEIGHT = 4.0
SETS = {"validation": ("validation set", style.VALIDATION, "D--"), "test": ("test set", style.TEST, "o-")}
MOST_IN_DETAIL = 30  # epochs; with more, curves are smoothed, and training is shown by epoch
FAINT = 0.3


def write(
    path: Path, dataset: str, progress: Sequence[Progress], epochs: Sequence[Epoch], steps_per_epoch: int
) -> None:
    """Draw loss and accuracy of the training batches, and of the validation and test set after each epoch.

    Args:
        path: the PNG file.
        dataset: its name, for the title.
        progress: the reports within epochs, in order.
        epochs: the records of the epochs, one or more.
        steps_per_epoch: the number of steps in an epoch.

    """
    detailed = epochs[-1].epoch <= MOST_IN_DETAIL
    with style.new_figure(path, HEIGHT, title(dataset, epochs[-1], steps_per_epoch)) as figure:
        loss, accuracy = figure.subplots(1, 2)
        if detailed:
            places = [report.step / steps_per_epoch for report in progress]
            training, label = [(report.loss, report.accuracy) for report in progress], "training batches"
        else:
            places = [epoch.step / steps_per_epoch for epoch in epochs]
            training = [(epoch.train_loss, epoch.train_accuracy) for epoch in epochs]
            label = "training batches"
        draw = functools.partial(_draw, window=1 if detailed else 2 * (len(epochs) // 20) + 1)
        draw(loss, places, [each[0] for each in training], "-", style.TRAINING, label)
        draw(accuracy, places, [100 * each[1] for each in training], "-", style.TRAINING, label)
        for name, (label, colour, form) in SETS.items():
            line = form if detailed else form[1:]
            found = [epoch for epoch in epochs if getattr(epoch, f"{name}_loss") is not None]
            if found:
                numbers = [epoch.step / steps_per_epoch for epoch in found]
                values = [[getattr(epoch, f"{name}_{measure}") for epoch in found] for measure in ("loss", "accuracy")]
                draw(loss, numbers, values[0], line, colour, label)
                draw(accuracy, numbers, [100 * value for value in values[1]], line, colour, label)
        lowest = min(epoch.test_accuracy for epoch in epochs)
        loss.set(xlabel="epoch", ylabel="loss: cross-entropy (nats), log scale", yscale="log")
        accuracy.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(max(0, 100 * lowest - 10), 100.5))
        for axes in (loss, accuracy):
            _ticks(axes, epochs[-1].step / steps_per_epoch)
        handles, labels = loss.get_legend_handles_labels()
        if not detailed:
            handles.append(Line2D([], [], color=style.QUIET, alpha=FAINT))
            labels.append("faint: each epoch; bold: running median")
        figure.legend(handles, labels, loc="outside lower center", ncols=2 + len(SETS), columnspacing=1.2)


def _draw(
    axes: Axes, x: Sequence[float], y: Sequence[float], line: str, colour: str, label: str, *, window: int
) -> None:
    """Draw a curve; with a window of several points as their running median, and the curve itself faint behind it."""
    if window > 1:
        from scipy.ndimage import median_filter  # slow to import, and most runs are short

        axes.plot(x, y, color=colour, linewidth=1, alpha=FAINT)
        y = median_filter(np.asarray(y, float), window, mode="reflect")
    axes.plot(x, y, line, color=colour, label=label)


def title(dataset: str, last: Epoch, steps_per_epoch: int) -> str:
    """The result in one line.

    Example:
        >>> last = Epoch(2, 9, 0.1, 0.9, None, None, 0.2, 0.9918, 1e3, 1.0)
        >>> title("mnist", last, steps_per_epoch=6)
        'mnist: 99.18% test accuracy after 1.5 epochs'

    """
    passes = round(last.step / steps_per_epoch, 2)
    length = count(int(passes) if passes.is_integer() else passes, "epoch")
    return f"{dataset}: {last.test_accuracy:.2%} test accuracy after {length}"


def _ticks(axes: Axes, epochs: float) -> None:
    """Set ticks at whole epochs, or within the first if it is not complete, and write losses as plain numbers."""
    axes.grid()
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=epochs >= 1, min_n_ticks=1))
    axes.set_xlim(0, 1.02 * epochs)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
