"""confusion.png: the confusion matrix of the test set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from train.host.words import count
from train.report import style
from train.report.predictions import Predictions

MOST_WITH_NUMBERS = 20  # classes
DARKEST = 4  # mistakes of one kind that get the darkest colour, or more if there are; a single one stays pale
SHOWN = 2  # most frequent mistakes in the title


def write(path: Path, predictions: Predictions) -> None:
    """Draw the confusion matrix of a test set; the title names the most frequent mistakes."""
    class_names = predictions.class_names
    counts = matrix(predictions.labels, predictions.logits.argmax(-1), len(class_names))
    with style.new_figure(
        path, min(7.6, 2.8 + 0.7 * len(class_names)), title(predictions.dataset, class_names, counts)
    ) as figure:
        axes = figure.add_subplot()
        _cells(axes, counts)
        names = [style.shorten(name, 12) for name in class_names]
        upright = sum(map(len, names)) > 60
        axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        right = axes.secondary_yaxis("right")
        totals = counts.sum(1)
        shares = [
            f"{100 * hit / total:.1f}% of {total:,}" if total else "none"
            for hit, total in zip(counts.diagonal(), totals, strict=True)
        ]
        right.set_yticks(range(len(names)), shares, color=style.RIGHT)
        right.set_ylabel("share of each class that is right", color=style.RIGHT)
        right.tick_params(length=0)
        right.spines[:].set_visible(False)


def matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Count how often class i (row) was classified as class j (column).

    Example:
        >>> matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
        [[1, 0], [1, 1]]

    """
    return np.bincount(classes * labels + predictions, minlength=classes**2).reshape(classes, classes)


def title(dataset: str, class_names: Sequence[str], counts: np.ndarray) -> str:
    r"""The result, and the most frequent mistakes.

    Example:
        >>> title("digits", ("3", "5"), np.array([[8, 1], [2, 9]]))
        'digits: 85.00% of 20 test examples are right\nMost frequent mistake: 5 taken for 3 (2 times)'
        >>> title("digits", ("3", "5"), np.array([[1, 0], [0, 0]]))
        'digits: the one test example is right'

    """
    total, wrong = counts.sum(), counts - np.diag(counts.diagonal())
    if not wrong.any():
        return f"{dataset}: {f'all {total:,} test examples are' if total > 1 else 'the one test example is'} right"
    most = wrong.max()
    times = "once" if most == 1 else f"{most:,} times"
    are = "is" if total == 1 else "are"
    first = f"{dataset}: {counts.trace() / total:.2%} of {count(total, 'test example')} {are} right"
    pairs = np.argwhere(wrong == most)
    if most == 1 and len(pairs) > SHOWN:
        return f"{first}\nNo class is taken for another more than once"
    shown = ", ".join(f"{class_names[i]} taken for {class_names[j]}" for i, j in pairs[:SHOWN])
    more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    which, each = ("mistakes", " each") if len(pairs) > 1 else ("mistake", "")
    return f"{first}\nMost frequent {which}: {shown}{more} ({times}{each})"


def _cells(axes: Axes, counts: np.ndarray) -> None:
    """Draw the cells: right ones green, mistakes the more purple the more there are, and zeros empty."""
    wrong = counts - np.diag(counts.diagonal())
    share = (wrong / max(DARKEST, wrong.max()))[..., None] ** 0.7
    colours = 1 - share * (1 - np.array(to_rgb(style.WRONG)))
    colours[np.diag_indices(len(counts))] = 1 - 0.25 * (1 - np.array(to_rgb(style.RIGHT)))
    axes.imshow(colours)
    for edge in np.arange(len(counts) + 1) - 0.5:
        axes.axhline(edge, color=style.GRID, linewidth=0.8)
        axes.axvline(edge, color=style.GRID, linewidth=0.8)
    if len(counts) > MOST_WITH_NUMBERS:
        return
    for (i, j), number in np.ndenumerate(counts):
        if number:
            dark = i != j and share[i, j, 0] > 0.55
            axes.text(j, i, f"{number:,}", ha="center", va="center", color="white" if dark else style.TEXT)
