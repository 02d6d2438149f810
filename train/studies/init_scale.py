"""Does training depend less on the initial weights?"""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from train.network.models import MLP, LayerOptions
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, seeds_of, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, scale_kernels, start

LEARNED = 80.0  # percent training accuracy from which a network counts as learning


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of the book, except for the number of seeds."""

    seeds: int = 3
    first_seed: int = 0
    deviations: int = 16
    images: int = 1000
    hidden: tuple[int, ...] = (100,) * 5
    batch_size: int = 100
    epochs: int = 20
    learning_rate: float = 0.01


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure the training accuracy for `with` and `without`: (deviation, seed, epoch)."""
    train = data.first(settings.images, 1).train
    examples = train.labels.size
    each = examples // settings.batch_size
    tx = optax.sgd(settings.learning_rate)

    def run(norm: object, deviation: jax.Array, seed: jax.Array) -> jax.Array:
        layers = LayerOptions(norm=norm, kernel_init=nn.initializers.normal(1.0))  # pyright: ignore[reportArgumentType]
        model = MLP(10, settings.hidden, layers)
        state = scale_kernels(start(model, tx, train, seed), deviation)
        order = orders(seed, examples, each * settings.epochs, settings.batch_size)
        return fit(model, tx, state, train, order, accuracy(model, train), every=each)[2]

    axes = deviations(settings), seeds_of(settings)
    norm = partial(NORM, epsilon=1e-6)  # the book's 10e-7
    return {"with": product(partial(run, norm), *axes), "without": product(partial(run, None), *axes)}


def deviations(settings: Settings) -> np.ndarray:
    """The initial standard deviations: from 1 to 1e-4 in equal ratios."""
    return np.logspace(0, -4, settings.deviations, dtype=np.float32)


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Compare the numbers of initial standard deviations at which the networks learn."""
    last = {name: numbers[name][:, :, -1] for name in ("with", "without")}
    learned = {name: int((values.mean(1) >= LEARNED).sum()) for name, values in last.items()}
    few, many = learned["without"], learned["with"]
    best = int(last["without"].mean(1).argmax())
    rows = tuple(
        (f"{deviation:.2g}", spread(last["with"][i]), spread(last["without"][i]))
        for i, deviation in enumerate(deviations(settings))
    )
    return Finding(
        verdict(many >= 2 * max(few, 1), many > few),
        f"With the norm, {many} of {len(rows)} initial scales learn; without, {few}",
        f"After {settings.epochs} epochs at least {LEARNED:.0f}% of the training images are right at {many} of "
        f"{len(rows)} initial standard deviations with the norm, and at {few} without. At the worst deviation they are "
        f"{last['with'].mean(1).min():.1f}% and {last['without'].mean(1).min():.1f}%. The scale still matters with the "
        f"norm: at {deviations(settings)[best]:.2g}, the best deviation without norm, the network without norm reaches "
        f"{spread(last['without'][best])}% and the one with it {spread(last['with'][best])}%.",
        Table(("initial std", "with norm, training accuracy (%)", "without (%)"), rows),
    )


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """Draw the accuracy over the epochs, a panel for each deviation."""
    columns = min(4, settings.deviations)
    grid = figure.subplots(-(-settings.deviations // columns), columns, sharex=True, sharey=True, squeeze=False)
    epochs = np.arange(1, settings.epochs + 1)
    for i, (axes, deviation) in enumerate(zip(grid.flat, deviations(settings), strict=False)):
        figures.band(axes, epochs, numbers["with"][i], figures.WITH, "with norm")
        figures.band(axes, epochs, numbers["without"][i], figures.WITHOUT, "without")
        figures.plain(axes, ylim=(0, 102), xlim=(0, settings.epochs))
        axes.set_title(f"initial std {deviation:.2g}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.supylabel("training accuracy (%)", fontsize=10)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)


STUDY = Study(
    name="init-scale",
    title="Training depends less on the initial weights",
    claim="With batch normalization, learning depends far less on the scale of the initial weights.",
    source="Saitoh, Deep Learning from Scratch, section 6.3; two of the tutorials that this project began with",
    procedure="{images} training images, an MLP with hidden layers of {hidden}, relu, plain SGD at "
    "{learning_rate}, batches of {batch_size}, {epochs} epochs, {deviations} initial standard deviations from 1 to "
    "10⁻⁴ in equal ratios, for all layers alike. Training accuracy is taken in evaluation mode after each epoch.",
    criterion="Reproduced: with the norm, at least twice as many of the {deviations} initial standard deviations reach "
    "80% training accuracy in the last epoch (mean over the seeds; at least two where none does without). "
    "Partly: more of them, but fewer than twice as many.",
    quick=Settings(),
    full=Settings(
        seeds=10,
        first_seed=CONFIRMING,
    ),
    networks=lambda settings: 2 * settings.deviations * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
    height=6.4,
)
