"""Does batch normalization reduce overfitting, and the need for dropout?"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from train.network.models import MLP, LayerOptions
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, differs, seeds_of, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start

KINDS = ("with", "ghost", "without")
LABELS = {"with": "with norm", "ghost": "norm of few", "without": "without"}
PLAIN = {"smaller": "worse than", "larger": "better than", "the same": "as good as"}
COLOURS = {"with": figures.WITH, "ghost": figures.THIRD, "without": figures.WITHOUT}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A training set far too small for the network."""

    seeds: int = 5
    first_seed: int = 0
    train_images: int = 500
    test_images: int = 2000
    hidden: tuple[int, ...] = (256, 256)
    dropouts: tuple[float, ...] = (0.0, 0.2, 0.5)
    learning_rate: float = 1e-3
    batch_size: int = 64
    ghost: int = 8
    steps: int = 500


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure the accuracy at the end as `{kind}_{train|test}`: (dropout, seed)."""
    data = data.first(settings.train_images, settings.test_images)
    examples, tx = data.train.labels.size, optax.adam(settings.learning_rate)

    def run(norm: Any, dropout: float, seed: jax.Array) -> Any:  # noqa: ANN401
        model = MLP(10, settings.hidden, LayerOptions(norm=norm, dropout=dropout))
        order = orders(seed, examples, settings.steps, settings.batch_size)
        state = start(model, tx, data.train, seed)
        state, _, _ = fit(model, tx, state, data.train, order, lambda _: None, every=settings.steps, seed=seed)
        return accuracy(model, data.train)(state), accuracy(model, data.test)(state)

    numbers = {}
    norms = {"with": NORM, "ghost": partial(NORM, ghost_batch_size=settings.ghost), "without": None}
    for name, norm in norms.items():
        found = [product(partial(run, norm, dropout), seeds_of(settings)) for dropout in settings.dropouts]
        numbers[f"{name}_train"], numbers[f"{name}_test"] = (np.stack(each) for each in zip(*found, strict=True))
    return numbers


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Test three parts: a smaller gap, less gain by dropout, and still some gain by dropout beside the norm."""
    train, test = ({k: numbers[f"{k}_{part}"] for k in KINDS} for part in ("train", "test"))
    gap = {k: train[k] - test[k] for k in KINDS}
    best = {k: int(test[k].mean(1).argmax()) for k in KINDS}
    gain = {k: test[k][best[k]] - test[k][0] for k in KINDS}
    held = {k: compare(gap[k][0], gap["without"][0]) for k in KINDS}
    plain = compare(test["with"][0], test["without"][best["without"]])
    parts = (
        held["with"] == "smaller",
        compare(gain["with"], gain["without"]) == "smaller" and plain != "smaller",
        best["with"] > 0 and differs(test["with"][best["with"]], test["with"][0]),
    )
    rows = tuple(
        (f"{dropout:g}", *(spread(each[k][i]) for k in KINDS for each in (test, gap)))
        for i, dropout in enumerate(settings.dropouts)
    )
    return Finding(
        verdict(*parts),
        f"Overfitting without dropout: {gap['with'][0].mean():.1f} points with the norm, "
        f"{gap['without'][0].mean():.1f} without",
        f"Without dropout the gap between training and test accuracy is {spread(gap['with'][0])} points with the norm "
        f"and {spread(gap['without'][0])} without: {held['with']}. The best dropout gains {gain['with'].mean():.1f} "
        f"points of test accuracy with the norm and {gain['without'].mean():.1f} without, and the norm alone is "
        f"{PLAIN[plain]} that; dropout beside the norm {'helps' if parts[2] else 'does not help beyond the noise'}. If "
        f"the norm regularises by the noise of its statistics, statistics of only {settings.ghost} examples should do "
        "so more: their gap is "
        f"{spread(gap['ghost'][0])} points, {held['ghost']} than without norm.".replace("the same than", "the same as"),
        Table(("dropout", *(f"{LABELS[k]}: {part}" for k in KINDS for part in ("test (%)", "gap"))), rows),
    )


def compare(a: np.ndarray, b: np.ndarray) -> str:
    """Compare the mean of a with that of b: "smaller", "larger", or "the same" within the noise.

    Example:
        >>> compare(np.array([1.0, 1.1]), np.array([2.0, 2.1])), compare(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
        ('smaller', 'the same')

    """
    return ("smaller" if a.mean() < b.mean() else "larger") if differs(a, b) else "the same"


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """Draw the test accuracy and the gap by dropout rate."""
    left, right = figure.subplots(1, 2)
    x = np.arange(len(settings.dropouts))
    for i, kind in enumerate(KINDS):
        label = f"norm of {settings.ghost} examples" if kind == "ghost" else LABELS[kind]
        test, train = numbers[f"{kind}_test"], numbers[f"{kind}_train"]
        figures.points(left, x + 0.2 * (i - 1), test, COLOURS[kind], label)
        figures.bars(right, x + 0.27 * (i - 1), train - test, COLOURS[kind], label, 0.25)
    for axes in (left, right):
        axes.set_xticks(x, [f"{dropout:g}" for dropout in settings.dropouts])
    figures.plain(left, xlabel="dropout", ylabel="test accuracy (%)")
    figures.plain(right, xlabel="dropout", ylabel="training − test accuracy (points)")
    left.set_title("test accuracy", fontsize=10)
    right.set_title("overfitting: gap (less is better)", fontsize=10)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


STUDY = Study(
    name="regularization",
    title="Batch normalization reduces overfitting and the need for dropout",
    claim="Batch normalization reduces overfitting; it makes dropout less necessary, and still combines with it.",
    source="two of the tutorials that this project began with; Ioffe & Szegedy 2015, section 3.4",
    procedure="{train_images} training and {test_images} test images, an MLP with hidden layers of {hidden}, relu, "
    "Adam at {learning_rate}, batches of {batch_size}, {steps} steps, dropout {dropouts} behind each hidden layer; "
    "without norm, with it, and with statistics of groups of {ghost} examples.",
    criterion="Reproduced: (1) without dropout, the gap between training and test accuracy is smaller with the norm; "
    "(2) the best dropout rate gains less test accuracy with the norm than without it, and the norm alone is "
    "not worse than the best dropout rate alone; (3) the best dropout rate beside the norm is better than the "
    "norm alone. Each beyond the noise. Partly: one or two of the three.",
    quick=Settings(),
    full=Settings(
        seeds=10,
        first_seed=CONFIRMING,
        train_images=1000,
        test_images=10_000,
        dropouts=(0.0, 0.2, 0.35, 0.5),
        steps=2000,
    ),
    networks=lambda settings: 3 * len(settings.dropouts) * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
