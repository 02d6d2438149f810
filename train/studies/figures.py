"""The common style of the studies' figures: the same colour for the same thing (Okabe and Ito's colours)."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from train.report.style import BLUE, QUIET, VERMILION

WITH, WITHOUT = BLUE, VERMILION  # the norm, in every figure
THIRD, FOURTH, FIFTH, GREY = "#009E73", "#CC79A7", "#E69F00", QUIET
WIDTH, DPI = 8.0, 100  # inches and dots per inch: 800 pixels


def new_figure(height: float, headline: str) -> Figure:
    """Return an empty figure with its headline on top."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(headline, fontsize=min(12, 12 * 72 / len(headline)), fontweight="bold")
    return figure


def plain(axes: Axes, **labels: Any) -> None:  # noqa: ANN401
    """Give axes a light grid, no frame, and the labels."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(**labels)


def band(
    axes: Axes,
    x: np.ndarray,
    values: np.ndarray,
    colour: str,
    label: str | None = None,
    least: float | None = None,
    **line: Any,  # noqa: ANN401
) -> None:
    """Draw the mean over the seeds (the first axis) as a line, and one standard deviation about it as a band.

    With `least`, both are computed from the logarithms, and smaller values count as `least`.
    """
    back, values = (np.exp, np.log(np.maximum(values, least))) if least else (np.asarray, values)
    mean = values.mean(0)
    axes.plot(x, back(mean), color=colour, label=label, **line)
    if len(values) > 1:
        deviation = values.std(0, ddof=1)
        axes.fill_between(x, back(mean - deviation), back(mean + deviation), color=colour, alpha=0.2, linewidth=0)


def bars(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str, width: float) -> None:
    """Draw the mean over the seeds (the last axis) as bars, one standard deviation as whiskers, and seeds as points."""
    deviation = values.std(-1, ddof=1) if values.shape[-1] > 1 else None
    axes.bar(x, values.mean(-1), width, yerr=deviation, color=colour, label=label, alpha=0.75, capsize=3)
    points = np.broadcast_to(np.asarray(x)[:, None], values.shape)
    axes.plot(points.ravel(), values.ravel(), ".", color="black", markersize=3, alpha=0.6)


def points(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    """Draw the mean over the seeds (the last axis) with one standard deviation as whiskers, and each seed as a dot."""
    deviation = values.std(-1, ddof=1) if values.shape[-1] > 1 else None
    axes.errorbar(x, values.mean(-1), deviation, fmt="s", color=colour, label=label, capsize=3, markersize=6)
    seeds = np.broadcast_to(np.asarray(x)[:, None] + 0.06, values.shape)
    axes.plot(seeds.ravel(), values.ravel(), ".", color=colour, markersize=3, alpha=0.7)


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file with few colours, and so few bytes, and without time or software versions."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=DPI)
    Image.open(drawn).convert("RGB").quantize(128).save(file, "PNG", optimize=True)
    return file.getvalue()
