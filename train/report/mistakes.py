"""mistakes.png: the worst mistakes of a network, and its least certain right answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from train.host.words import count
from train.report import style
from train.report.predictions import Predictions

ROWS, COLUMNS = 4, 6
MOST = ROWS * COLUMNS
MOST_ROWS = 10  # of examples that are not images


class Case(NamedTuple):
    """A test example with its true and its predicted class."""

    example: int  # its index in the test set
    true: str
    predicted: str
    true_probability: float
    predicted_probability: float

    @property
    def right(self) -> bool:
        """True if the prediction is right."""
        return self.true == self.predicted


def worst(class_names: Sequence[str], labels: np.ndarray, logits: np.ndarray, most: int = MOST) -> list[Case]:
    """Return the mistakes, lowest probability of the true class first, and then the least certain right examples.

    Example:
        >>> cases = worst(("a", "b"), np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 9.0]]))
        >>> [(case.example, case.predicted) for case in cases]
        [(1, 'b'), (0, 'a')]

    """
    probabilities, predicted = softmax(logits.astype(np.float64), axis=-1), logits.argmax(-1)
    rows = np.arange(len(labels))
    of_true, of_predicted = probabilities[rows, labels], probabilities[rows, predicted]
    return [
        Case(i, class_names[int(labels[i])], class_names[int(predicted[i])], float(of_true[i]), float(of_predicted[i]))
        for i in map(int, np.lexsort((of_true, predicted == labels))[:most])
    ]


def write(path: Path, predictions: Predictions) -> None:
    """Draw the worst mistakes: images as a grid, other inputs by their probabilities alone."""
    inputs, labels, logits = predictions.inputs, predictions.labels, predictions.logits
    mistakes = int((logits.argmax(-1) != labels).sum())
    images = inputs.ndim == 4 and inputs.shape[-1] in (1, 3)
    cases = worst(predictions.class_names, labels, logits, MOST if images else MOST_ROWS)
    first = title(predictions.dataset, mistakes, len(labels), len(cases))
    if images:
        _grid(path, first, cases, inputs)
    else:
        _bars(path, first, cases)


def title(dataset: str, mistakes: int, total: int, shown: int) -> str:
    r"""The result, and which examples are shown.

    Example:
        >>> title("mnist", 77, 10_000, 24)
        'mnist: 77 of 10,000 test examples are wrong\nThe 24 worst mistakes'
        >>> title("iris", 1, 30, 10)
        'iris: 1 of 30 test examples is wrong\nThe mistake, and the 9 least certain of the others'
        >>> title("iris", 0, 30, 10)
        'iris: all 30 test examples are right\nThe 10 least certain'
        >>> title("iris", 1, 1, 1)
        'iris: 1 of 1 test example is wrong'

    """
    if not mistakes:
        found = f"all {total:,} test examples are right" if total > 1 else "the one test example is right"
    else:
        found = f"{mistakes:,} of {count(total, 'test example')} {'is' if mistakes == 1 else 'are'} wrong"
    if shown < 2:
        return f"{dataset}: {found}"
    if mistakes >= shown:
        which = f"The {shown} worst mistakes" if mistakes > shown else "All mistakes"
    elif mistakes:
        which = f"The mistake{'s' if mistakes > 1 else ''}, and the {shown - mistakes} least certain of the others"
    else:
        which = f"The {shown} least certain"
    return f"{dataset}: {found}\n{which}"


def _grid(path: Path, first: str, cases: Sequence[Case], inputs: np.ndarray) -> None:
    rows = -(-len(cases) // COLUMNS)
    with style.new_figure(path, 0.9 + 2.15 * rows, first) as figure:
        for axes, case in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, cases, strict=False):
            image = inputs[case.example]
            axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(" \n \n ")  # room for the three lines below, which have two colours
            predicted_colour = style.RIGHT if case.right else style.WRONG
            for line, text, colour in (
                (2, f"true: {style.shorten(case.true, 14)}", style.RIGHT),
                (1, f"predicted: {style.shorten(case.predicted, 12)}", predicted_colour),
                (0, _percent(case.predicted_probability), predicted_colour),
            ):
                offset = {"xytext": (0, 4 + 15 * line), "textcoords": "offset points"}
                annotation = axes.annotate(text, (0, 1), xycoords="axes fraction", color=colour, fontsize=9.5, **offset)
                annotation.set_in_layout(False)  # wide words must not make images small
        for axes in figure.axes:
            axes.axis("off")


def _bars(path: Path, first: str, cases: Sequence[Case]) -> None:
    with style.new_figure(path, 1.6 + 0.34 * len(cases), first) as figure:
        axes = figure.add_subplot()
        rows, true = range(len(cases)), [100 * case.true_probability for case in cases]
        mistakes = [case for case in cases if not case.right]  # they come first
        predicted = [100 * case.predicted_probability for case in mistakes]
        if mistakes:
            axes.hlines(rows[: len(mistakes)], true[: len(mistakes)], predicted, color=style.GRID, linewidth=3)
            axes.plot(predicted, rows[: len(mistakes)], "s", color=style.WRONG, markersize=8, label="predicted class")
        axes.plot(true, rows, "o", color=style.RIGHT, markersize=8, label="true class")
        axes.set_yticks(rows, [_row(case) for case in cases])
        axes.set(xlim=(-2, 102), xlabel="predicted probability (%)")
        axes.invert_yaxis()
        axes.grid(axis="x")
        figure.legend(loc="outside lower center", ncols=2)


def _row(case: Case) -> str:
    predicted = "" if case.right else f", predicted {style.shorten(case.predicted, 16)}"
    return f"example {case.example}: {style.shorten(case.true, 16)}{predicted}"


def _percent(probability: float) -> str:
    """A probability in percent, never rounded to 100%.

    Example:
        >>> _percent(0.5), _percent(0.99951), _percent(0.9999)
        ('50.0%', '>99.9%', '>99.9%')

    """
    return ">99.9%" if probability > 0.9994 else f"{probability:.1%}"
