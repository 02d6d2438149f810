"""mistakes.png: the examples on which the network is most wrong."""

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
MOST_ROWS = 10  # where there are no images to be shown


class Case(NamedTuple):
    """An example, what it is, and what the network makes of it."""

    example: int  # its index in the test set
    true: str
    said: str
    true_probability: float
    said_probability: float

    @property
    def right(self) -> bool:
        """Whether it is no mistake at all."""
        return self.true == self.said


def worst(class_names: Sequence[str], labels: np.ndarray, logits: np.ndarray, most: int = MOST) -> list[Case]:
    """The mistakes that give the true class the least probability; without any, the least certain examples.

    Example:
        >>> worst(("a", "b"), np.array([0, 0]), np.array([[0.0, 9.0], [1.0, 0.0]]))[0][:3]
        (0, 'a', 'b')

    """
    probabilities, said = softmax(logits.astype(np.float64), axis=-1), logits.argmax(-1)
    rows = np.arange(len(labels))
    of_true, of_said = probabilities[rows, labels], probabilities[rows, said]
    candidates = np.flatnonzero(said != labels)
    candidates = candidates if candidates.size else rows
    chosen = candidates[np.argsort(of_true[candidates], kind="stable")][:most]
    return [
        Case(i, class_names[int(labels[i])], class_names[int(said[i])], float(of_true[i]), float(of_said[i]))
        for i in map(int, chosen)
    ]


def write(path: Path, predictions: Predictions) -> None:
    """Draws the worst mistakes: images as a grid, other inputs as the probabilities alone."""
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
    r"""The finding.

    Example:
        >>> title("mnist", 77, 10_000, 24)
        'mnist: 77 of 10,000 test examples are mistaken\nThe 24 worst, and how sure the network was'
        >>> title("iris", 0, 30, 24)
        'iris: all 30 test examples are right\nThe 24 least certain'
        >>> title("iris", 1, 1, 1), title("iris", 0, 1, 1)[:37]
        ('iris: 1 of 1 test example is mistaken\nHow sure the network was', 'iris: the one test example is right\nH')

    """
    if total == 1 and not mistakes:
        return f"{dataset}: the one test example is right\nHow sure the network was"
    if not mistakes:
        return f"{dataset}: all {total:,} test examples are right\nThe {shown} least certain"
    found = f"{dataset}: {mistakes:,} of {count(total, 'test example')} {'is' if mistakes == 1 else 'are'} mistaken"
    which = "How" if shown == mistakes else f"The {shown} worst, and how"
    return f"{found}\n{which} sure the network was"


def _grid(path: Path, first: str, cases: Sequence[Case], inputs: np.ndarray) -> None:
    rows = -(-len(cases) // COLUMNS)
    with style.new_figure(path, 0.9 + 2.15 * rows, first) as figure:
        for axes, case in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, cases, strict=False):
            image = inputs[case.example]
            axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(" \n \n ")  # room for what follows, in two colours
            said_colour = style.RIGHT if case.right else style.WRONG
            for line, text, colour in (
                (2, f"is {style.shorten(case.true, 14)}", style.RIGHT),
                (1, f"said {style.shorten(case.said, 12)}", said_colour),
                (0, _percent(case.said_probability), said_colour),
            ):
                offset = {"xytext": (0, 4 + 15 * line), "textcoords": "offset points"}
                annotation = axes.annotate(text, (0, 1), xycoords="axes fraction", color=colour, **offset)
                annotation.set_in_layout(False)  # wide words must not make images small
        for axes in figure.axes:
            axes.axis("off")


def _bars(path: Path, first: str, cases: Sequence[Case]) -> None:
    with style.new_figure(path, 1.6 + 0.34 * len(cases), first) as figure:
        axes = figure.add_subplot()
        rows = range(len(cases))
        true, said = [100 * case.true_probability for case in cases], [100 * case.said_probability for case in cases]
        axes.hlines(rows, true, said, color=style.GRID, linewidth=3)
        right = cases[0].right  # then all of them are
        if not right:
            axes.plot(said, rows, "s", color=style.WRONG, markersize=8, label="what the network says")
        label = "what it is, and the network says" if right else "what it is"
        axes.plot(true, rows, "o", color=style.RIGHT, markersize=8, label=label)
        axes.set_yticks(rows, [_row(case) for case in cases])
        axes.set(xlim=(-2, 102), xlabel="probability that the network gives (%)")
        axes.invert_yaxis()
        axes.grid(axis="x")
        figure.legend(loc="outside lower center", ncols=2)


def _row(case: Case) -> str:
    said = "" if case.right else f", said {style.shorten(case.said, 16)}"
    return f"example {case.example}: is {style.shorten(case.true, 16)}{said}"


def _percent(probability: float) -> str:
    """Never 100% of a mistake.

    Example:
        >>> _percent(0.5), _percent(0.99951), _percent(0.9999)
        ('50.0%', '>99.9%', '>99.9%')

    """
    return ">99.9%" if probability > 0.9994 else f"{probability:.1%}"
