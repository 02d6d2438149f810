"""Does batch renormalization repair small and non-i.i.d. batches?"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from train.network.build import renorm_ramp
from train.network.models import MLP, LayerOptions
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, differs, seeds_of, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start

KINDS = ("plain", "renorm")
COLOURS = {"plain": figures.WITH, "renorm": figures.THIRD, "none": figures.WITHOUT}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A batch of constant size, divided into smaller and smaller groups, as in the paper."""

    seeds: int = 3
    first_seed: int = 0
    train_images: int = 5000
    test_images: int = 2000
    hidden: tuple[int, ...] = (100, 100)
    learning_rate: float = 0.05
    momentum: float = 0.99
    batch_size: int = 32
    groups: tuple[int, ...] = (2, 4, 8, 32)
    classes: int = 2
    steps: int = 1600


def few_classes(labels: jax.Array, seed: jax.Array, steps: int, batch_size: int, classes: int) -> jax.Array:
    """The examples of each step, (steps, batch_size): equally many of each of a few classes, which change by step."""
    sorted_by_class = jnp.argsort(labels, stable=True)
    counts = jnp.bincount(labels, length=10)
    starts = jnp.cumsum(counts) - counts

    def draw_step(key: jax.Array) -> jax.Array:
        chosen, within = jax.random.split(key)
        which = jnp.repeat(jax.random.permutation(chosen, 10)[:classes], batch_size // classes)
        place = (jax.random.uniform(within, (batch_size,)) * counts[which]).astype(jnp.int32)
        return sorted_by_class[starts[which] + jnp.minimum(place, counts[which] - 1)]

    return jax.lax.map(draw_step, jax.random.split(jax.random.fold_in(jax.random.key(seed), 2), steps))


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure the test accuracy.

    `plain` and `renorm` have axes (group, seed), `none` has (seed,), and so have the three with `_classes` behind their
    names, which are for batches of few classes.
    """
    data = data.first(settings.train_images, settings.test_images)
    examples, tx = data.train.labels.size, optax.sgd(settings.learning_rate)

    def run(norm: Any, independent: bool, seed: jax.Array) -> jax.Array:  # noqa: ANN401
        model = MLP(10, settings.hidden, LayerOptions(norm=norm))
        if independent:
            order = orders(seed, examples, settings.steps, settings.batch_size)
        else:
            order = few_classes(data.train.labels, seed, settings.steps, settings.batch_size, settings.classes)
        state = start(model, tx, data.train, seed)
        return fit(model, tx, state, data.train, order, accuracy(model, data.test), every=settings.steps)[2][-1]

    norm = partial(NORM, momentum=settings.momentum)
    kinds = {"plain": norm, "renorm": partial(norm, renorm=renorm_ramp(settings.steps))}
    seeds, numbers = seeds_of(settings), {}
    for kind, each in kinds.items():
        groups = [partial(each, ghost_batch_size=group) for group in settings.groups]
        numbers[kind] = np.stack([product(partial(run, group, True), seeds) for group in groups])
        numbers[f"{kind}_classes"] = product(partial(run, each, False), seeds)
    numbers["none"] = product(partial(run, None, True), seeds)
    numbers["none_classes"] = product(partial(run, None, False), seeds)
    return numbers


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Test two parts: the smallest groups, and batches of few classes."""
    plain, renorm = numbers["plain"], numbers["renorm"]
    few_plain, few_renorm = numbers["plain_classes"], numbers["renorm_classes"]
    small = bool(renorm[0].mean() > plain[0].mean() and differs(renorm[0], plain[0]))
    few = bool(few_renorm.mean() > few_plain.mean() and differs(few_renorm, few_plain))
    rows: list[tuple[str, ...]] = [
        (f"groups of {group}", *(spread(numbers[kind][i]) for kind in KINDS), spread(numbers["none"]))
        for i, group in enumerate(settings.groups)
    ]
    rows.append((f"{settings.classes} classes per batch", *(spread(numbers[f"{k}_classes"]) for k in (*KINDS, "none"))))
    gained, gained_few = renorm[0].mean() - plain[0].mean(), few_renorm.mean() - few_plain.mean()
    return Finding(
        verdict(small, few),
        f"Renormalization: {gained:+.1f} points with groups of {settings.groups[0]}, {gained_few:+.1f} with "
        f"{settings.classes} classes per batch",
        f"With statistics of {settings.groups[0]} examples, plain batch normalization reaches {spread(plain[0])}% of "
        f"the test set and renormalization {spread(renorm[0])}%; with {settings.groups[-1]} they reach "
        f"{spread(plain[-1])}% and {spread(renorm[-1])}%. With batches of {settings.classes} classes: "
        f"{spread(few_plain)}% and {spread(few_renorm)}%. (The paper, Inception-v3 on ImageNet: groups of 4, 74.2 to "
        "76.5%; batches that are not i.i.d., about 67 to 78.5%.)",
        Table(("statistics of", "plain (%)", "renormalized (%)", "no norm (%)"), tuple(rows)),
    )


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """Draw the accuracy by the size of the groups, and with batches of few classes."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    labels = {"plain": "plain batch norm", "renorm": "batch renorm", "none": "no norm"}
    groups = np.array(settings.groups)
    for kind in KINDS:
        figures.band(left, groups, numbers[kind].T, COLOURS[kind], labels[kind], marker="o")
    left.axhline(numbers["none"].mean(), color=COLOURS["none"], linestyle="--", label=labels["none"])
    for i, kind in enumerate((*KINDS, "none")):
        figures.points(right, np.array([i]), numbers[f"{kind}_classes"][None], COLOURS[kind], labels[kind])
    left.set_xscale("log", base=2)
    left.set_xticks(groups, [str(group) for group in groups])
    figures.plain(left, xlabel="examples normalized together", ylabel="test accuracy (%)")
    left.set_title(f"batch of {settings.batch_size}, divided", fontsize=10)
    right.set_xticks(range(3), ["plain", "renorm", "no norm"])
    figures.plain(right)
    right.set_title(f"batches of {settings.classes} classes only", fontsize=10)
    lowest = min(values.min() for values in numbers.values())
    left.set_ylim(np.floor(lowest - 2), None)
    left.legend(frameon=False, loc="lower right")


STUDY = Study(
    name="small-batch",
    title="Batch renormalization repairs small and non-i.i.d. batches",
    claim="Where the statistics come from few examples, or from batches that are not random samples, batch "
    "renormalization recovers the accuracy that plain batch normalization loses.",
    source="Ioffe 2017, arXiv 1702.03275; one of the tutorials that this project began with",
    procedure="An MLP with hidden layers of {hidden}, SGD at {learning_rate}, batches of {batch_size}, {steps} steps "
    "on {train_images} images. As in the paper, the batch is divided into groups of {groups} that are "
    "normalized separately; in addition, batches of {classes} classes only. Renormalization is plain for the "
    "first 5/160 of training; then its bounds widen: d to 5 until 25/160, r to 3 until 40/160. Evaluation uses "
    "running averages (momentum {momentum}).",
    criterion="Reproduced: the test accuracy is higher with renormalization, beyond the noise, (1) in the smallest "
    "groups and (2) in batches of {classes} classes. Partly: one of the two.",
    quick=Settings(),
    full=Settings(seeds=10, first_seed=CONFIRMING, train_images=60_000, test_images=10_000, steps=16_000),
    networks=lambda settings: (2 * (len(settings.groups) + 1) + 2) * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
