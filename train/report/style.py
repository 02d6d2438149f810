"""The common style of all pictures, legible at 800 pixels.

Each thing has the same colour in every picture. The colours are Okabe and Ito's, and Tol's purple for mistakes; people
with colour blindness can tell them apart.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from train.host import files

BLUE, VERMILION = "#0072B2", "#D55E00"
TRAINING, TEST, VALIDATION = BLUE, VERMILION, "#555555"  # by the data that was measured on
RIGHT, WRONG = "#007A5A", "#AA3377"  # green for the true class, purple for a wrong prediction
TEXT, QUIET, GRID = "#222222", "#666666", "#DDDDDD"
WIDTH = 9.0  # inches; 1350 pixels
DOTS = 150  # per inch

_SETTINGS: Any = {
    "axes.edgecolor": QUIET,
    "axes.grid": False,
    "axes.labelcolor": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.titlesize": 14,
    "font.size": 11,
    "grid.color": GRID,
    "legend.frameon": False,
    "text.color": TEXT,
    "text.parse_math": False,  # names may contain dollar signs
    "xtick.color": QUIET,
    "xtick.labelcolor": TEXT,
    "ytick.color": QUIET,
    "ytick.labelcolor": TEXT,
}


@contextlib.contextmanager
def new_figure(path: Path, height: float, title: str) -> Iterator[Figure]:
    """A context with a figure in this style, which is written to a file at the end.

    Args:
        path: the PNG file.
        height: in inches.
        title: the result that the picture shows, as a sentence.

    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
        figure.suptitle(title)
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS, metadata={"Software": None})
    files.write(path, buffer.getvalue())


def shorten(name: str, length: int) -> str:
    """Shorten a name to at most `length` characters.

    Example:
        >>> shorten("versicolor", 10), shorten("versicolor", 6)
        ('versicolor', 'versi…')

    """
    return name if len(name) <= length else name[: length - 1] + "…"
