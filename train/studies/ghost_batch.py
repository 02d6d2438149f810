"""Do large batches generalise better with ghost statistics?"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from train.network.models import MLP, LayerOptions
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, seeds_of, smaller, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start


@dataclasses.dataclass(frozen=True)
class Settings:
    """A batch of a quarter of the training set."""

    seeds: int = 5
    first_seed: int = 0
    train_images: int = 4096
    test_images: int = 2000
    hidden: tuple[int, ...] = (200, 200)
    batch_size: int = 1024
    small_batch: int = 32
    ghosts: tuple[int, ...] = (16, 32, 128)
    judged: int = 16  # the one of them that the verdict is about
    learning_rate: float = 0.05
    momentum: float = 0.9
    epochs: int = 15


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure the test accuracy: `ghost` by (ghost sizes and whole batch, seed), `small` and `none` by (seed,)."""
    data = data.first(settings.train_images, settings.test_images)
    examples = data.train.labels.size
    large = min(settings.batch_size, 1 << (examples.bit_length() - 1))  # the digits are fewer

    def run(norm: Any, batch_size: int, seed: jax.Array) -> jax.Array:  # noqa: ANN401
        model = MLP(10, settings.hidden, LayerOptions(norm=norm))
        rate = settings.learning_rate * (batch_size / settings.small_batch) ** 0.5  # as Hoffer et al. scale it
        tx = optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(rate, momentum=settings.momentum))
        steps = settings.epochs * (examples // batch_size)
        order = orders(seed, examples, steps, batch_size)
        state = start(model, tx, data.train, seed)
        return fit(model, tx, state, data.train, order, accuracy(model, data.test), every=steps)[2][-1]

    seeds = seeds_of(settings)
    norms = [partial(NORM, ghost_batch_size=ghost) for ghost in (*settings.ghosts, None)]
    return {
        "ghost": np.stack([product(partial(run, norm, large), seeds) for norm in norms]),
        "small": product(partial(run, NORM, settings.small_batch), seeds),
        "none": product(partial(run, None, large), seeds),
    }


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Compare the judged ghost size with the whole batch, and with the gap to small batches."""
    ghosts, whole, small = numbers["ghost"][:-1], numbers["ghost"][-1], numbers["small"]
    judged = ghosts[settings.ghosts.index(settings.judged)]
    gain = judged.mean() - whole.mean()
    better, worse = smaller(whole, judged), smaller(judged, whole)
    outcome = "better" if better else "worse" if worse else "no difference beyond the noise"
    gap = small.mean() - whole.mean()
    closes = f", {gain / gap:.0%} of the gap to batches of {settings.small_batch}" if better and gap > 0 else ""
    rows = [(f"ghosts of {g}", spread(v, 2)) for g, v in zip(settings.ghosts, ghosts, strict=True)]
    rows += [
        ("whole batch", spread(whole, 2)),
        (f"batches of {settings.small_batch}", spread(small, 2)),
        ("no norm, whole batch", spread(numbers["none"], 2)),
    ]
    return Finding(
        verdict(better),
        f"Ghosts of {settings.judged} in a large batch: {outcome} ({gain:+.2f} points of test accuracy)",
        f"With batches of {settings.batch_size:,} the statistics of the whole batch give {spread(whole, 2)}% on the "
        f"test set, those of {settings.judged} examples {spread(judged, 2)}%: "
        f"{outcome}{closes}. Batches of {settings.small_batch}, for "
        f"as many epochs, give {spread(small, 2)}%.",
        Table(("statistics of", "test accuracy (%)"), tuple(rows)),
    )


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """Draw the accuracy for each ghost size, and a line for small batches."""
    axes = figure.subplots()
    ghosts = np.arange(len(settings.ghosts))
    figures.points(axes, ghosts, numbers["ghost"][:-1], figures.THIRD, "ghost statistics")
    x, small = len(ghosts), numbers["small"]
    figures.points(axes, np.array([x]), numbers["ghost"][-1:], figures.WITH, "statistics of the whole batch")
    figures.points(axes, np.array([x + 1]), numbers["none"][None], figures.WITHOUT, "no norm")
    axes.axhline(small.mean(), color=figures.GREY, linestyle="--", label=f"batches of {settings.small_batch}")
    axes.set_xticks(range(x + 2), [f"ghosts of {g}" for g in settings.ghosts] + ["whole batch", "no norm"])
    low = min(values.min() for values in numbers.values())
    high = max(values.max() for values in numbers.values())
    figures.plain(axes, ylabel="test accuracy (%)", ylim=(low - (high - low) / 2, high + (high - low) / 2))
    axes.legend(frameon=False, ncols=2, loc="upper center")


STUDY = Study(
    name="ghost-batch",
    title="Large batches generalise better with ghost statistics",
    claim="In large batches, statistics of small groups ('ghost' batches) generalise better than those of the whole "
    "batch.",
    source="Hoffer, Hubara & Soudry 2017, arXiv 1705.08741",
    procedure="{train_images} training images, an MLP with hidden layers of {hidden}, batches of {batch_size} for "
    "{epochs} epochs; statistics of groups of {ghosts}, and of the whole batch. SGD with momentum {momentum} and "
    "gradient clipping, at {learning_rate} for batches of {small_batch}, and by the root of the batch's size more for "
    "larger ones, as in the paper.",
    criterion="Reproduced: the test accuracy with ghosts of {judged} is higher than with the statistics of the whole "
    "batch, beyond the noise. The size was chosen beforehand, and the other sizes do not count. There is no "
    "partial reproduction.",
    quick=Settings(),
    full=Settings(
        seeds=10,
        first_seed=CONFIRMING,
        train_images=60_000,
        test_images=10_000,
        batch_size=4096,
        epochs=30,
    ),
    networks=lambda settings: (len(settings.ghosts) + 3) * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
