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
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from train.network.models import MLP, LayerOptions
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, seeds_of, smaller, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start
from train.training.step import TrainState, prepare

PERCENTILES = (15, 50, 85)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The paper's network, and a tenth of its steps."""

    seeds: int = 3
    first_seed: int = 0
    hidden: tuple[int, ...] = (100, 100, 100)
    kernel_std: float = 0.1
    learning_rate: float = 0.1
    train_images: int = 10_000
    test_images: int = 500
    batch_size: int = 60
    steps: int = 5000
    every: int = 50


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure both networks; every name begins with `with_` or `without_`.

    `accuracy` and `spread` have axes (seed, measurement), `wander` and `widening` (seed,), and `percentiles`, which are
    those of the first unit, (seed, measurement, percentile). The others are over all units.
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
        found = product(partial(run, norm), seeds_of(settings))
        numbers[f"{name}_accuracy"], units = found
        numbers[f"{name}_wander"], numbers[f"{name}_widening"] = wander(units), widening(units)
        numbers[f"{name}_spread"] = np.median(width(units), axis=-1)
        numbers[f"{name}_percentiles"] = units[..., 0]
    return numbers


def percentiles(model: MLP, state: TrainState, inputs: jax.Array, layer: str) -> jax.Array:
    """Percentiles, over some inputs, of the values that a layer passes to its activation: (percentile, unit)."""
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
    """The range of a unit's median over the training, in mean half-widths; for each seed the mean over the units.

    Example:
        >>> wander(np.array([[[[-1.0], [0.0], [1.0]], [[0.0], [1.0], [2.0]], [[-1.0], [0.0], [1.0]]]]))
        array([1.])

    """
    low, median, high = np.moveaxis(values, 2, 0)
    return (np.ptp(median, axis=1) / ((high - low) / 2).mean(1)).mean(-1)


def widening(values: np.ndarray) -> np.ndarray:
    """The largest width of a unit's distribution over its smallest; for each seed the median over the units."""
    return np.median(width(values).max(1), axis=-1)


def width(values: np.ndarray) -> np.ndarray:
    """The width of each unit's distribution relative to its smallest one: (seed, measurement, unit)."""
    found = values[:, :, 2] - values[:, :, 0]
    return found / found.min(1, keepdims=True)


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Compare both measures of movement, and report the accuracy."""
    names = ("with", "without")
    moved = {name: numbers[f"{name}_wander"] for name in names}
    wider = {name: numbers[f"{name}_widening"] for name in names}
    last = {name: numbers[f"{name}_accuracy"][:, -1] for name in names}
    stable = smaller(moved["with"], moved["without"]), smaller(wider["with"], wider["without"])
    ratio = wider["without"].mean() / wider["with"].mean()
    return Finding(
        verdict(*stable),
        f"The spread of inputs changes {wider['with'].mean():.1f}-fold with the norm, "
        f"{wider['without'].mean():.1f}-fold without",
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
    """Draw the accuracy, the spread over all units, and the distribution of the first unit."""
    left, middle, right = figure.subplots(1, 3)
    steps = settings.every * np.arange(1, numbers["with_accuracy"].shape[1] + 1)
    for name, colour in (("with", figures.WITH), ("without", figures.WITHOUT)):
        label = "with norm" if name == "with" else "without"
        figures.band(left, steps, numbers[f"{name}_accuracy"], colour, label)
        figures.band(middle, steps, numbers[f"{name}_spread"], colour)
        low, median, high = np.moveaxis(numbers[f"{name}_percentiles"][0], 1, 0)
        right.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        right.plot(steps, median, color=colour)
    left.set_title("test accuracy (%)", fontsize=10)
    middle.set_title("spread / smallest spread", fontsize=10)
    right.set_title("one unit: median, 15–85%", fontsize=10)
    figures.plain(left, ylim=(0, 102), xlabel="step")
    figures.plain(middle, yscale="log", xlabel="step")
    middle.set_ylim(0.9, 1.3 * max(numbers[f"{name}_spread"].max() for name in ("with", "without")))
    middle.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    middle.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    middle.yaxis.set_minor_locator(NullLocator())
    figures.plain(right, xlabel="step")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)


STUDY = Study(
    name="activations",
    title="Inputs of layers keep a stable distribution",
    claim="Batch normalization keeps the distribution of a layer's inputs stable while the layers before it learn.",
    source="Ioffe & Szegedy 2015, section 4.1 and figure 1; one of the tutorials that this project began with",
    procedure="An MLP with hidden layers of {hidden} sigmoid units, initial weights of standard deviation "
    "{kernel_std}, SGD at {learning_rate}, batches of {batch_size}, {steps} steps. Every {every} steps: test "
    "accuracy, and the 15th, 50th and 85th percentiles, over {test_images} test images in evaluation mode, of the "
    "input of each sigmoid of the last hidden layer. Spread is the distance from the 15th to the 85th percentile; the "
    "figure shows its median over the units, and the distribution of the first unit.",
    criterion="Reproduced: with the norm, (1) the median of the inputs wanders less (its range over the training, in "
    "mean half-widths of the distribution, averaged over the units), and (2) their spread changes less (the "
    "largest over the smallest, median over the units). Both beyond the noise. Partly: one of the two.",
    quick=Settings(),
    full=Settings(seeds=10, first_seed=CONFIRMING, train_images=60_000, test_images=10_000, steps=50_000, every=500),
    networks=lambda settings: 2 * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
