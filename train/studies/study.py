"""What a study is: a claim, the runs that put it to the test, and what follows from their numbers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from train.training.step import Examples

Verdict = Literal["reproduced", "partly reproduced", "not reproduced"]
Numbers = Mapping[str, np.ndarray]  # what was measured, by name; each study says the axes of each


class Data(NamedTuple):
    """What a study learns from."""

    name: str
    train: Examples
    test: Examples

    def first(self, train: int, test: int) -> "Data":
        """The first examples of each set; all, where there are fewer."""
        return Data(self.name, self.train.at(slice(train)), self.test.at(slice(test)))


class Table(NamedTuple):
    """Cells in words; the first column names the rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Finding(NamedTuple):
    """What follows from the numbers of a study."""

    verdict: Verdict
    headline: str  # the finding in one line: the figure's title
    summary: str  # the finding with its numbers, and why, where the claim does not hold
    table: Table


@dataclasses.dataclass(frozen=True)
class Study:
    """A claim and its measurement.

    Attributes:
        name: on the command line.
        title: in the documentation.
        claim: what is said to hold.
        source: who says so.
        procedure: what is done, in a paragraph; `{field}` stands for a field of the settings.
        quick: settings of minutes; a frozen dataclass with `seeds`.
        full: settings of the source, or of hours.
        networks: how many networks are trained, by the settings.
        measure: trains them all.
        conclude: the finding from the numbers alone.
        draw: the figure from the numbers alone.
        height: of the figure, in inches.

    """

    name: str
    title: str
    claim: str
    source: str
    procedure: str
    quick: Any
    full: Any
    networks: Callable[[Any], int]
    measure: Callable[[Data, Any], Numbers]
    conclude: Callable[[Numbers, Any], Finding]
    draw: Callable[[Numbers, Any, Figure], None]
    height: float = 3.9


def verdict(*parts: object) -> Verdict:
    """The verdict on a claim of which all parts hold, some, or none.

    Example:
        >>> verdict(True, False), verdict(False)
        ('partly reproduced', 'not reproduced')

    """
    return "reproduced" if all(parts) else "partly reproduced" if any(parts) else "not reproduced"


def spread(values: np.ndarray, digits: int = 1) -> str:
    """Mean ± standard deviation over the seeds (n - 1 in the denominator); a dash where there is no number.

    Example:
        >>> spread(np.array([1.0, 2.0, 3.0])), spread(np.array([np.nan, 1.0])), spread(np.array([4.0]))
        ('2.0 ± 1.0', '–', '4.0')

    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        return "–"
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if values.size > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def differs(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two means over seeds lie further apart than twice the standard error of their difference.

    Example:
        >>> differs(np.array([1.0, 1.1, 0.9]), np.array([2.0, 2.1, 1.9]))
        True
        >>> differs(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
        False

    """
    error = np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    return bool(abs(np.mean(a) - np.mean(b)) > 2 * error)
