"""Do the inputs of layers keep a stable distribution?"""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from train.network.models import MLP, LayerOptions
from train.studies import figures
from train.studies.study import Data, Finding, Numbers, Study, Table, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start
from train.training.step import TrainState, prepare

PERCENTILES = (15, 50, 85)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The paper's network, and a tenth of its steps."""

    seeds: int = 3
    hidden: tuple[int, ...] = (100, 100, 100)
    kernel_std: float = 0.1
    learning_rate: float = 0.1
    train_images: int = 10_000
    test_images: int = 500
    batch_size: int = 60
    steps: int = 5000
    every: int = 50


def measure(data: Data, settings: Settings) -> Numbers:
    """With `with_` or `without_` before it: `accuracy`, (seed, measurement); `wander`, `widening`, (seed,), over all
    units; `percentiles`, (seed, measurement, percentile), of the first unit.
    """
    data = data.first(settings.train_images, settings.test_images)
    examples, tx = data.train.labels.size, optax.sgd(settings.learning_rate)

    def run(norm: Any, seed: jax.Array) -> Any:  # noqa: ANN401
        init = nn.initializers.normal(settings.kernel_std)
        model = MLP(10, settings.hidden, LayerOptions(norm=norm, activation=nn.sigmoid, kernel_init=init))
        layer = f"{'dense' if norm is None else 'norm'}{len(settings.hidden)}"
        right = accuracy(model, data.test)

        def look(state: TrainState) -> tuple[jax.Array, jax.Array]:
            return right(state), percentiles(model, state, data.test.inputs, layer)

        order = orders(seed, examples, settings.steps, settings.batch_size)
        return fit(model, tx, start(model, tx, data.train, seed), data.train, order, look, every=settings.every)[2]

    numbers = {}
    for name, norm in (("with", NORM), ("without", None)):
        found = product(partial(run, norm), range(settings.seeds))
        numbers[f"{name}_accuracy"], units = found
        numbers[f"{name}_wander"], numbers[f"{name}_widening"] = wander(units), widening(units)
        numbers[f"{name}_percentiles"] = units[..., 0]
    return numbers


def percentiles(model: MLP, state: TrainState, inputs: jax.Array, layer: str) -> jax.Array:
    """Over some inputs, of what a layer hands to its activation in evaluation: (percentile, unit)."""
    _, kept = model.apply(
        state.variables,
        prepare(inputs),
        train=False,
        capture_intermediates=lambda module, _: module.name == layer,
        mutable=["intermediates"],
    )
    intermediates: Any = kept["intermediates"]
    (output,) = intermediates[layer]["__call__"]
    return jnp.percentile(output, jnp.array(PERCENTILES, jnp.float32), axis=0)


def wander(values: np.ndarray) -> np.ndarray:
    """How far a unit's median goes in all, in units of its mean half-width; the mean over the units, for each seed.

    Example:
        >>> wander(np.array([[[[-1.0], [0.0], [1.0]], [[0.0], [1.0], [2.0]], [[-1.0], [0.0], [1.0]]]]))
        array([1.])

    """
    low, median, high = np.moveaxis(values, 2, 0)
    return (np.ptp(median, axis=1) / ((high - low) / 2).mean(1)).mean(-1)


def widening(values: np.ndarray) -> np.ndarray:
    """The largest width of a unit's distribution over its smallest; the median over the units, for each seed."""
    width = values[:, :, 2] - values[:, :, 0]
    return np.median(width.max(1) / width.min(1), axis=-1)


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Both measures of movement, and the accuracy."""
    names = ("with", "without")
    moved = {name: numbers[f"{name}_wander"] for name in names}
    wider = {name: numbers[f"{name}_widening"] for name in names}
    last = {name: numbers[f"{name}_accuracy"][:, -1] for name in names}
    stable = (moved["with"].mean() < moved["without"].mean(), wider["with"].mean() < wider["without"].mean())
    ratio = wider["without"].mean() / wider["with"].mean()
    headline = (
        f"The norm keeps inputs in place: their spread grows {wider['with'].mean():.1f}-fold, without it "
        f"{wider['without'].mean():.1f}-fold"
    )
    return Finding(
        verdict(*stable),
        headline if all(stable) else "The norm does not keep the inputs of the last hidden layer in place",
        f"Over {settings.steps:,} steps the median of an input to the last hidden layer's sigmoids wanders over "
        f"{moved['with'].mean():.2f} half-widths with the norm and {moved['without'].mean():.2f} without; the largest "
        f"spread is {wider['with'].mean():.1f} and {wider['without'].mean():.1f} times the smallest, {ratio:.1f} "
        f"times as much without. Test accuracy at the end: {spread(last['with'])}% and {spread(last['without'])}%.",
        Table(
            ("", "with norm", "without"),
            (
                ("wander of the median (half-widths)", spread(moved["with"], 2), spread(moved["without"], 2)),
                ("largest / smallest spread", spread(wider["with"], 2), spread(wider["without"], 2)),
                ("test accuracy (%)", spread(last["with"]), spread(last["without"])),
            ),
        ),
    )


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """The paper's figure 1: accuracy, and the percentiles of one unit without and with."""
    left, middle, right = figure.subplots(1, 3)
    steps = settings.every * np.arange(1, numbers["with_accuracy"].shape[1] + 1)
    for name, colour, axes in (("with", figures.WITH, right), ("without", figures.WITHOUT, middle)):
        label = "with norm" if name == "with" else "without"
        figures.band(left, steps, numbers[f"{name}_accuracy"], colour, label)
        low, median, high = np.moveaxis(numbers[f"{name}_percentiles"][0], 1, 0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0, label="15th to 85th percentile")
        axes.plot(steps, median, color=colour, label="median")
        axes.set_title(f"a sigmoid's input, {label}", fontsize=10)
        figures.plain(axes, xlabel="step", ylabel="value")
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    figures.plain(left, ylim=(0, 102), xlabel="step", ylabel="test accuracy (%)")
    left.legend(frameon=False, loc="lower right")
    limits = [*middle.get_ylim(), *right.get_ylim()]
    for axes in (middle, right):
        axes.set_ylim(min(limits), max(limits))


STUDY = Study(
    name="activations",
    title="Inputs of layers keep a stable distribution",
    claim="Batch normalization keeps the distribution of a layer's inputs stable while the layers before it learn.",
    source="Ioffe & Szegedy 2015, section 4.1 and figure 1; one of the tutorials that this project began with",
    procedure="An MLP with hidden layers of {hidden} sigmoid units, initial weights of standard deviation "
    "{kernel_std}, SGD at {learning_rate}, batches of {batch_size}, {steps} steps. Every {every} steps: test "
    "accuracy, and the 15th, 50th and 85th percentiles, over {test_images} test images in evaluation mode, of the "
    "input of each sigmoid of the last hidden layer. The figure shows the first of them.",
    quick=Settings(),
    full=Settings(seeds=5, train_images=60_000, test_images=10_000, steps=50_000, every=500),
    networks=lambda settings: 2 * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
