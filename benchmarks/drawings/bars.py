"""Pictures of bars, a figure written at the end of each: training step, memory, startup, inference,
collectives, accelerators.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.case import OURS
from benchmarks.drawings.libraries import look
from train.report import style

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[Mapping[str, Any]]
_BAR, _AROUND = 0.36, 1.5  # inches: of a bar, of all that is not bars


def train_step(path: Path, records: Records) -> None:
    """Images per second, one panel per batch size, the fastest first."""
    speeds = {(r["name"], r["batch_size"]): r["images_per_second"] for r in records}
    sizes = sorted({r["batch_size"] for r in records})
    names = sorted({r["name"] for r in records}, key=lambda name: -speeds[name, sizes[0]])
    height = _AROUND + _BAR * len(names)
    with style.new_figure(path, height, f"Training the MNIST CNN: {lead(records)}") as figure:
        for axes, size in zip(_panels(figure, len(sizes)), sizes, strict=True):
            values = [speeds[name, size] for name in names]
            _draw(axes, names, values, lambda speed: f"{speed:,.0f}", [look(name).colour for name in names])
            axes.set(title=f"batch {size}")
        figure.supxlabel("images a second (longer is better)", fontsize=11)


def lead(records: Records) -> str:
    """The lead of the fastest over ours, or of ours over the next."""
    best = max((r for r in records if r["name"] != OURS), key=lambda r: r["ratio"], default=None)
    if best is None:
        return OURS
    if best["ratio"] > 1:
        return f"{best['name']} is {best['ratio']:.2f} times as fast as {OURS}"
    return f"{OURS} is {1 / best['ratio']:.2f} times as fast as {best['name']}, and more"


def memory(path: Path, records: Records) -> None:
    """The bytes that a ResNet-18 keeps for its backward pass."""
    names, mebibytes = [r["name"] for r in records], [r["bytes"] / 2**20 for r in records]
    least = min(records, key=lambda r: r["of_flax"])
    title = f"Kept for the backward pass of a ResNet-18: down to {least['of_flax']:.2f} of Flax's"
    labels = dict(zip(mebibytes, (f"{r['bytes'] / 2**20:.1f} ({r['of_flax']:.2f})" for r in records), strict=True))
    with style.new_figure(path, _AROUND + _BAR * len(names), title) as figure:
        axes = figure.subplots()
        _draw(axes, names, mebibytes, labels.__getitem__, [look(name).colour for name in names])
        axes.set(xlabel="MiB, parameters apart, and the share of Flax's (shorter is better)")


def startup(path: Path, records: Records) -> None:
    """Seconds of the processor and of the wall clock."""
    names, seconds = [r["name"] for r in records], [r["processor"] for r in records]
    times = {r["name"]: r["processor"] for r in records}
    added = max(0.0, times.get("import jaxbn", 0) - times.get("import jax", 0))
    title = f"Until it starts: import jaxbn adds {added:.2f} s to import jax"
    colours = [style.BLUE if "jaxbn" in name or "train" in name or "start" in name else style.QUIET for name in names]
    with style.new_figure(path, _AROUND + _BAR * len(names), title) as figure:
        axes = figure.subplots()
        _draw(axes, names, seconds, lambda value: f"{value:.2f}", colours)
        axes.set(xlabel="seconds of the processor, over all its cores (shorter is better)")


def inference(path: Path, records: Records) -> None:
    """Images a second with the norms and with the norms folded away, a panel for each batch size."""
    timed = [r for r in records if "batch_size" in r]
    sizes = sorted({r["batch_size"] for r in timed})
    best = max((r for r in timed if r["name"] == "folded"), key=lambda r: r["ratio"])
    title = f"Folding the norms away: up to {best['ratio']:.2f} times as fast, at batch {best['batch_size']}"
    with style.new_figure(path, 2.6, title) as figure:
        for axes, size in zip(_panels(figure, len(sizes)), sizes, strict=True):
            chosen = [r for r in timed if r["batch_size"] == size]
            speeds = [r["images_per_second"] for r in chosen]
            _draw(axes, [r["name"] for r in chosen], speeds, lambda v: f"{v:,.0f}", [style.QUIET, style.BLUE])
            axes.set(title=f"batch {size}")
        figure.supxlabel("images a second (longer is better)", fontsize=11)


def collectives(path: Path, records: Records) -> None:
    """How many collectives a norm takes, and their bytes, a panel for each; at the most devices."""
    devices = max(r["devices"] for r in records)
    chosen = [r for r in records if r["devices"] == devices]
    names = [f"{r['name']}, {r['way'].replace('check_vma=False', 'unchecked')}" for r in chosen]
    most = max(r["collectives"] for r in chosen if r["name"] == OURS)
    title = f"A norm on {devices} devices, forward and backward: {OURS} takes {most} collectives"
    with style.new_figure(path, _AROUND + _BAR * len(names), title) as figure:
        count, size = _panels(figure, 2)
        colours = [look(r["name"]).colour for r in chosen]
        _draw(count, names, [r["collectives"] for r in chosen], str, colours)
        _draw(size, names, [r["bytes"] for r in chosen], lambda value: f"{value:,}", colours)
        count.set(xlabel="collectives (fewer is better)")
        size.set(xlabel="bytes (fewer is better)")


def accelerators(path: Path, records: Records) -> None:
    """Passes over x of a layer in the first shape and type that were compiled, a panel for each device."""
    layers = [r for r in records if r["passes"] is not None]
    chosen = [r for r in layers if (r["shape"], r["dtype"]) == (layers[0]["shape"], layers[0]["dtype"])]
    passes = {(r["target"], r["case"], r["norm"]): r["passes"] for r in chosen}
    targets = list(dict.fromkeys(r["target"] for r in chosen))
    rows = list(dict.fromkeys((r["case"], r["norm"]) for r in chosen))
    title = f"Passes over memory, convolution – norm – convolution, both directions, {chosen[0]['dtype']}"
    with style.new_figure(path, _AROUND + _BAR * len(rows), title) as figure:
        names = [f"{norm}: {case}" for case, norm in rows]
        for axes, target in zip(_panels(figure, len(targets)), targets, strict=True):
            values = [passes.get((target, *each), 0.0) for each in rows]
            _draw(axes, names, values, lambda value: f"{value:.1f}" if value else "", [look(n).colour for n in names])
            axes.set(title=target)
        figure.supxlabel(f"passes over x, {chosen[0]['shape']} (shorter is better)", fontsize=11)


def _panels(figure: "Figure", count: int) -> Sequence["Axes"]:
    """Beside each other; the names stand at the first alone."""
    return list(figure.subplots(1, count, squeeze=False, sharey=True).flat)


def _draw(
    axes: "Axes", names: Sequence[str], values: Sequence[float], label: Callable[[Any], str], colours: Sequence[str]
) -> None:
    """Horizontal bars from the top down, with room for the figures at their ends; our name in bold."""
    bars = axes.barh(range(len(names)), values, 0.75, color=colours)
    axes.bar_label(bars, [label(value) for value in values], padding=3, fontsize=11)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * max(values))
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    for text in axes.get_yticklabels():
        text.set_fontweight("bold" if text.get_text().startswith(OURS) else "normal")
