"""A study: a claim, the runs that test it, the criterion of its verdict, and the finding."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from train.training.step import Examples

Verdict = Literal["reproduced", "partly reproduced", "not reproduced"]
Numbers = Mapping[str, np.ndarray]  # the measurements by name; each study documents their axes


class Data(NamedTuple):
    """The data of a study."""

    name: str
    train: Examples
    test: Examples

    def first(self, train: int, test: int) -> "Data":
        """Return the first examples of each set, or all if there are fewer."""
        return Data(self.name, self.train.at(slice(train)), self.test.at(slice(test)))


class Table(NamedTuple):
    """A table of texts; the first column names the rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Finding(NamedTuple):
    """The finding of a study, computed from its numbers."""

    verdict: Verdict
    headline: str  # the finding in one line, the figure's title; must not contradict the verdict
    summary: str  # the finding with its numbers, and the reason where the claim does not hold
    table: Table


@dataclasses.dataclass(frozen=True)
class Study:
    """A claim and its measurement.

    Attributes:
        name: on the command line.
        title: in the documentation.
        claim: the claim.
        source: where it is made.
        procedure: the method, in a paragraph; `{field}` stands for a field of the settings.
        criterion: the results that count as reproduced, fixed before the full form is run; may contain `{field}`.
        quick: settings for a run of about a minute, which explores; a frozen dataclass with `seeds` and `first_seed`.
        full: settings for the run that confirms: more images, longer training, and seeds that no quick run has used.
        networks: returns the number of networks that the settings train.
        measure: trains the networks and returns the numbers.
        conclude: returns the finding, from the numbers alone.
        draw: draws the figure, from the numbers alone.
        height: the height of the figure in inches.

    """

    name: str
    title: str
    claim: str
    source: str
    procedure: str
    criterion: str
    quick: Any
    full: Any
    networks: Callable[[Any], int]
    measure: Callable[[Data, Any], Numbers]
    conclude: Callable[[Numbers, Any], Finding]
    draw: Callable[[Numbers, Any, Figure], None]
    height: float = 3.9


CONFIRMING = 100  # the first seed of the full forms: the quick forms, which explored, used seeds from 0


def seeds_of(settings: Any) -> range:  # noqa: ANN401
    """The seeds of a study's settings."""
    return range(settings.first_seed, settings.first_seed + settings.seeds)


def verdict(*parts: object) -> Verdict:
    """Return the verdict on a claim of which all parts hold, some, or none.

    Example:
        >>> verdict(True, False), verdict(False)
        ('partly reproduced', 'not reproduced')

    """
    return "reproduced" if all(parts) else "partly reproduced" if any(parts) else "not reproduced"


def spread(values: np.ndarray, digits: int = 1) -> str:
    """Format mean ± standard deviation over the seeds (n - 1 in the denominator), or a dash if a value is not finite.

    Example:
        >>> spread(np.array([1.0, 2.0, 3.0])), spread(np.array([np.nan, 1.0])), spread(np.array([4.0]))
        ('2.0 ± 1.0', '–', '4.0')

    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        return "–"
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if values.size > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def smaller(a: np.ndarray, b: np.ndarray) -> bool:
    """True if the mean of a is smaller than that of b, beyond the noise.

    Example:
        >>> smaller(np.array([1.0, 1.1]), np.array([2.0, 2.1])), smaller(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
        (True, False)

    """
    return bool(np.mean(a) < np.mean(b)) and differs(a, b)


def differs(a: np.ndarray, b: np.ndarray) -> bool:
    """True if two means over seeds differ by more than twice the standard error of their difference.

    Example:
        >>> differs(np.array([1.0, 1.1, 0.9]), np.array([2.0, 2.1, 1.9]))
        True
        >>> differs(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
        False

    """
    error = np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    return bool(abs(np.mean(a) - np.mean(b)) > 2 * error)
