"""Charts of points and lines: exactness, the layer, time to accuracy."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, isnan, log10
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from benchmarks.case import OURS
from benchmarks.drawings.libraries import look
from train.report import style

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes

Records = Sequence[Mapping[str, Any]]
_GOAL = 2e-6  # the error that ours stays below


def exactness(path: Path, records: Records) -> None:
    """Draw the largest error of the output by |mean|/std, a line for each library."""
    from matplotlib.ticker import FuncFormatter

    libraries = [r for r in records if not r["way"]]
    worst = max(r["output"] for r in libraries if r["library"] == OURS)
    title = f"Largest float32 output error as |mean|/std grows: {OURS} stays below {_above(worst):.1g}"
    with style.new_figure(path, 5.4, title) as figure:
        axes = figure.subplots()
        ratios = list(dict.fromkeys(r["ratio"] for r in libraries))
        for name in _names(libraries):
            errors = [r["output"] for r in libraries if r["library"] == name]
            colour, marker, line = look(name)
            axes.plot(
                range(len(ratios)),  # 0 has no place on a log scale
                errors,
                marker + line,
                color=colour,
                label=f"{name}, then NaN" if any(map(isnan, errors)) else name,
                linewidth=3.5 if name == OURS else 1.5,
                zorder=3 if name == OURS else 2,
            )
        axes.axhline(_GOAL, color=style.QUIET, linewidth=1)
        axes.text(len(ratios) - 0.8, _GOAL, "goal", color=style.QUIET, ha="left", va="center", backgroundcolor="white")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
        axes.set(xlabel="|mean| / standard deviation", ylabel="largest output error")
        axes.set_xticks(range(len(ratios)), [_power(ratio) if ratio >= 100 else f"{ratio:.0f}" for ratio in ratios])
        axes.grid()
        figure.legend(loc="outside right center")


def layer(path: Path, records: Records) -> None:
    """Draw the time of each library relative to ours, a column for each shape, a panel for each variant and dtype."""
    dtypes, variants, shapes = (list(dict.fromkeys(r[key] for r in records)) for key in ("dtype", "variant", "shape"))
    others = [r for r in records if r["library"] != OURS]
    ahead = sum(r["vs_ours"] >= 1 for r in others)
    title = f"The layer, forward and backward: {OURS} is faster in {ahead} of {len(others)} comparisons"
    low, high = min(0.9, *(r["vs_ours"] for r in others)), max(r["vs_ours"] for r in others)
    with style.new_figure(path, 1.8 + 2.4 * len(variants), title) as figure:
        panels = figure.subplots(len(variants), len(dtypes), squeeze=False, sharex=True, sharey=True)
        for i, variant in enumerate(variants):
            for j, dtype in enumerate(dtypes):
                chosen = [r for r in others if (r["dtype"], r["variant"]) == (dtype, variant)]
                _points(panels[i, j], chosen, shapes)
                panels[i, j].set_title(f"{variant}, {dtype}")
                panels[i, j].set_ylim(0.85 * low, 1.15 * high)
        for axes in panels[-1]:
            axes.set_xlabel("shape of x, the channels last")
        figure.supylabel(f"time relative to {OURS} (above the line: slower than {OURS})", fontsize=11)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)


def _points(axes: "Axes", records: Records, shapes: Sequence[str]) -> None:
    """Draw a point for each library at each shape, side by side, and a line for ours."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    names = _names(records)
    for k, name in enumerate(names):
        chosen = [r for r in records if r["library"] == name]
        beside = 0.7 * ((k + 0.5) / len(names) - 0.5)
        places, ratios = [shapes.index(r["shape"]) + beside for r in chosen], [r["vs_ours"] for r in chosen]
        colour, marker, _ = look(name)
        axes.plot(places, ratios, marker, color=colour, label=name, markersize=4.5)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([0.2, 0.5, 1, 2, 5, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.axhline(1, color=style.BLUE, linewidth=2.5, zorder=1.5)
    axes.axhspan(1e-3, 1, color=style.BLUE, alpha=0.06, zorder=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xticks(range(len(shapes)), shapes, rotation=40, ha="right", fontsize=9, rotation_mode="anchor")
    for i in range(1, len(shapes)):
        axes.axvline(i - 0.5, color=style.GRID, linewidth=0.8, zorder=0)
    axes.set_xlim(-0.5, len(shapes) - 0.5)


def time_to_accuracy(path: Path, records: Records) -> None:
    """Draw the accuracy of each seed by its training time, and a line through the means of each number of epochs."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    with style.new_figure(path, 4.8, _time_title(records)) as figure:
        axes = figure.subplots()
        for library in _names(records):
            lengths, (colour, marker, line) = _by_length(records, library), look(library)
            for each in lengths.values():
                times, accuracies = [r["train_seconds"] for r in each], [100 * r["accuracy"] for r in each]
                axes.plot(times, accuracies, marker, color=colour, alpha=0.3, markersize=4.5)
            means = [_means(each) for each in lengths.values()]
            axes.plot(*zip(*means, strict=True), marker + line, color=colour, markersize=9, label=library)
            left = library == OURS
            for n, mean_ in zip(lengths, means, strict=True):
                axes.annotate(
                    *(f"{n:g} epoch{'s' * (n != 1)}", mean_, (-12, 5) if left else (12, -5)),
                    textcoords="offset points",
                    ha="right" if left else "left",
                    va="bottom" if left else "top",
                    color=colour,
                )
        axes.set(xlabel="seconds of training (excluding compilation)", ylabel="test accuracy (%)", xscale="log")
        times = [r["train_seconds"] for r in records]
        axes.set_xlim(min(times) / 2, max(times) * 1.7)
        axes.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200, 500]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.margins(y=0.12)
        axes.yaxis.get_major_formatter().set_useOffset(False)  # pyright: ignore[reportAttributeAccessIssue]
        axes.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=2)


def _time_title(records: Records) -> str:
    """How soon a mean of 99% is reached, and how much longer another library takes for the same epochs."""
    ours = _by_length(records, OURS)
    means = [_means(each) for each in ours.values()]
    seconds, accuracy = next((each for each in means if each[1] >= 99), max(means, key=lambda each: each[1]))
    title = f"MNIST: {accuracy:.2f}% on average after {seconds:.1f} s of training"
    for library in (name for name in _names(records) if name != OURS):
        other = _by_length(records, library)
        ratio = median(_means(other[n])[0] / _means(ours[n])[0] for n in other if n in ours)
        title += f"; {library} takes {ratio:.1f} times as long"
    return title


def _by_length(records: Records, library: str) -> dict[float, Records]:
    chosen = [r for r in records if r["library"] == library]
    return {n: [r for r in chosen if r["epochs"] == n] for n in sorted({r["epochs"] for r in chosen})}


def _means(records: Records) -> tuple[float, float]:
    """Seconds of training and accuracy in percent."""
    return mean(r["train_seconds"] for r in records), mean(100 * r["accuracy"] for r in records)


def _above(value: float) -> float:
    """The next number with one digit.

    Example:
        >>> _above(8.2e-7), _above(9.5e-7)
        (9e-07, 1e-06)

    """
    unit = 10.0 ** floor(log10(value))
    return float(f"{ceil(value / unit) * unit:.1g}")


def _power(value: float) -> str:
    """Write a power of ten with a superscript exponent."""
    return "10" + f"{round(log10(value))}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _names(records: Records) -> list[str]:
    return list(dict.fromkeys(r["library"] for r in records))
