"""Do exponential averages lag behind and jitter, and re-estimated statistics not?"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import jaxbn
from train.network.models import MLP, LayerOptions
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, differs, seeds_of, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start
from train.training.step import TrainState, prepare

AVERAGES: dict[str, float | optax.Schedule] = {
    "EMA 0.99": 0.99,
    "EMA 0.9": 0.9,
    "debiased 0.99": jaxbn.debiased(0.99),
    "cumulative": jaxbn.cumulative(),
}
COLOURS = {
    "EMA 0.99": figures.WITH,
    "EMA 0.9": figures.FIFTH,
    "debiased 0.99": figures.FOURTH,
    "cumulative": figures.GREY,
    "recalibrated": figures.THIRD,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The first steps of training, where the choice matters."""

    seeds: int = 5
    first_seed: int = 0
    train_images: int = 5000
    test_images: int = 2000
    hidden: tuple[int, ...] = (100, 100)
    learning_rate: float = 0.1
    batch_size: int = 50
    every: int = 10
    measurements: int = 20
    recalibrated_at: tuple[int, ...] = (10, 20, 50, 100, 200)
    samples: int = 1000


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure the test accuracy by (seed, measurement) for each average; for `recalibrated` by (seed, step)."""
    data = data.first(settings.train_images, settings.test_images)
    examples, tx = data.train.labels.size, optax.sgd(settings.learning_rate)

    def run(model: MLP, seed: jax.Array) -> Any:  # noqa: ANN401
        order = orders(seed, examples, settings.every * settings.measurements, settings.batch_size)
        right = accuracy(model, data.test)
        state = start(model, tx, data.train, seed)

        def look(state: TrainState) -> Any:  # noqa: ANN401
            return right(state), state

        return fit(model, tx, state, data.train, order, look, every=settings.every)[2]

    numbers, states = {}, None
    for name, momentum in AVERAGES.items():
        model = MLP(10, settings.hidden, LayerOptions(norm=partial(NORM, momentum=momentum)))
        numbers[name], found = product(partial(run, model), seeds_of(settings))
        states = found if states is None else states  # of the first; what is learned is the same in all
    model = MLP(10, settings.hidden, LayerOptions(norm=partial(NORM, momentum=0.99)))
    numbers["recalibrated"] = recalibrated(model, states, data, settings)
    return numbers


def recalibrated(model: MLP, states: Any, data: Data, settings: Settings) -> np.ndarray:  # noqa: ANN401
    """The accuracy with running statistics re-estimated from the first training images, (seed, step)."""
    sample = prepare(data.train.inputs[: settings.samples])
    right = jax.jit(accuracy(model, data.test))

    def apply(variables: Any, batch: jax.Array) -> Any:  # noqa: ANN401
        return model.apply(variables, batch, train=True, mutable=["batch_stats"])

    def of(seed: int, step: int) -> float:
        place = step // settings.every - 1
        state = TrainState(*jax.tree.map(lambda leaf: leaf[seed, place], states))
        found = jaxbn.recalibrate(apply, state.variables, [sample])
        return float(right(state._replace(batch_stats=found["batch_stats"])))

    return np.array([[of(seed, step) for step in settings.recalibrated_at] for seed in range(settings.seeds)])


def at(numbers: Numbers, name: str, step: int, settings: Settings) -> np.ndarray:
    """The accuracies of the seeds at a step."""
    if name == "recalibrated":
        return numbers[name][:, settings.recalibrated_at.index(step)]
    return numbers[name][:, step // settings.every - 1]


def roughness(values: np.ndarray) -> np.ndarray:
    """The mean absolute change of the accuracy between measurements in the second half of training, in points."""
    return np.abs(np.diff(values[:, (values.shape[1] - 1) // 2 :], axis=1)).mean(1)


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Test that re-estimation is better early in training, and not worse at the end."""
    first, last = settings.recalibrated_at[0], settings.recalibrated_at[-1]
    early = {name: at(numbers, name, first, settings) for name in COLOURS}
    end = {name: at(numbers, name, last, settings) for name in COLOURS}
    ahead = early["recalibrated"].mean() - early["EMA 0.99"].mean()
    late = bool(ahead > 0 and differs(early["recalibrated"], early["EMA 0.99"]))
    kept = end["recalibrated"].mean() >= end["EMA 0.99"].mean() or not differs(end["recalibrated"], end["EMA 0.99"])
    rows = tuple(
        (name, *(spread(at(numbers, name, s, settings)) for s in settings.recalibrated_at)) for name in COLOURS
    )
    jumps = {name: roughness(numbers[name]).mean() for name in AVERAGES}
    return Finding(
        verdict(late, late and kept),
        f"After {first} steps: {early['recalibrated'].mean():.0f}% recalibrated, {early['EMA 0.99'].mean():.0f}% with "
        "the exponential average",
        f"The same weights after {first} steps: {spread(early['recalibrated'])}% of the test set with statistics "
        f"re-estimated from {settings.samples:,} images, {spread(early['EMA 0.99'])}% with the exponential average "
        f"(0.99), {spread(early['debiased 0.99'])}% with the same debiased; after {last}: "
        f"{spread(end['recalibrated'])}%, {spread(end['EMA 0.99'])}% and {spread(end['debiased 0.99'])}%. A shorter "
        f"memory catches up sooner, and in the second half jumps by {jumps['EMA 0.9']:.1f} points between "
        f"measurements (EMA 0.9; debiased 0.99: {jumps['debiased 0.99']:.1f}).",
        Table(("statistics: test accuracy (%) after", *(f"{s} steps" for s in settings.recalibrated_at)), rows),
    )


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """Draw the accuracy by step for each kind of statistics, with the same weights."""
    axes = figure.subplots()
    steps = settings.every * np.arange(1, settings.measurements + 1)
    for name in AVERAGES:
        figures.band(axes, steps, numbers[name], COLOURS[name], name)
    figures.band(
        axes,
        np.array(settings.recalibrated_at),
        numbers["recalibrated"],
        COLOURS["recalibrated"],
        "recalibrated",
        marker="o",
    )
    figures.plain(
        axes,
        xlabel="training step (the weights are the same for all)",
        ylabel="test accuracy (%), axis not from 0",
        xscale="log",
    )
    axes.legend(frameon=False, title="running statistics", loc="lower right")


STUDY = Study(
    name="running-stats",
    title="Exponential averages lag behind; re-estimated statistics do not",
    claim="Early in training, exponential averages of the statistics lag behind and are noisy; statistics re-estimated "
    "from some thousand examples are not.",
    source="Wu & Johnson 2021, arXiv 2105.07576, section 3",
    procedure="An MLP with hidden layers of {hidden}, SGD at {learning_rate}, batches of {batch_size}. The same "
    "weights, every {every} steps, are evaluated with running statistics of different averages, and at steps "
    "{recalibrated_at} with `jaxbn.recalibrate` on {samples} training images.",
    criterion="Reproduced: (1) at the first of the compared steps, the test accuracy with re-estimated statistics is "
    "higher than with the exponential average of 0.99, beyond the noise, and (2) at the last of them it is "
    "not lower, beyond the noise. Partly: (1) alone.",
    quick=Settings(),
    full=Settings(
        seeds=10,
        first_seed=CONFIRMING,
        train_images=60_000,
        test_images=10_000,
        every=10,
        measurements=100,
        recalibrated_at=(10, 50, 200, 500, 1000),
        samples=10_000,
    ),
    networks=lambda settings: len(AVERAGES) * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
