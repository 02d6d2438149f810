"""Does the gain come from a smoother landscape, or from less internal covariate shift?"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from train.network.models import MLP, LayerOptions
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, differs, seeds_of, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start, training_loss
from train.training.step import TrainState

KINDS = ("with", "without", "noisy")
LABELS = {"with": "with norm", "without": "without", "noisy": "norm, then noise"}
COLOURS = {"with": figures.WITH, "without": figures.WITHOUT, "noisy": figures.FOURTH}
TITLES = {  # of the measures of roughness
    "loss_range": "range of the loss (nats)",
    "gradient_distance": "change of gradient (ℓ₂)",
    "beta": "effective β-smoothness",
}
SHIFT = {
    True: "At a rate where the shift is larger the accuracy is still better: the gain there does not come from less "
    "shift.",
    False: "No network with more shift has the better accuracy: less shift is not ruled out as the cause.",
}
PLATEAU = (
    "A network that hardly learns stays on its initial plateau, where gradients are small and the loss is smooth: "
    "compare the early steps in the figure."
)
PANELS = TITLES | {"shift": "shift ‖G − G′‖₂"}
ROWS = TITLES | {"shift": "covariate shift ‖G − G′‖₂", "cosine": "cosine of G and G′"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Two learning rates: a low one, and one at which the network without norm hardly trains."""

    seeds: int = 3
    first_seed: int = 0
    hidden: tuple[int, ...] = (100,) * 6
    rates: tuple[float, ...] = (0.02, 0.1)
    multiples: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
    train_images: int = 5000
    test_images: int = 1000
    batch_size: int = 100
    steps: int = 300
    every: int = 10


class NoisyNorm(nn.Module):
    """A norm, then noise with a mean and variance of its own for each unit and step, which brings covariate shift back.

    The unit's mean is uniform in ±0.5 and its deviation in [1, 1.25]; about these, by 0.1, lie each example's own.
    """

    use_running_average: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize features (N, C), and add noise in training."""
        x = NORM(use_running_average=self.use_running_average, name="norm")(x)
        if self.use_running_average or self.is_initializing():
            return x
        keys = jax.random.split(self.make_rng("dropout"), 4)
        mean = jax.random.uniform(keys[0], x.shape[-1:], minval=-0.5, maxval=0.5)
        deviation = jax.random.uniform(keys[1], x.shape[-1:], minval=1.0, maxval=1.25)
        shift = mean + jax.random.uniform(keys[2], x.shape, minval=-0.1, maxval=0.1)
        return x * (deviation + 0.1 * jax.random.normal(keys[3], x.shape)) + shift


class Landscape(NamedTuple):
    """The measurements at a step."""

    loss_range: jax.Array  # of the losses along the gradient, nats
    gradient_distance: jax.Array  # the largest ℓ2 distance to a gradient along it
    beta: jax.Array  # the largest such distance over the distance moved
    shift: jax.Array  # (layers,): ‖G − G′‖₂ of each hidden layer but the first
    cosine: jax.Array  # (layers,): of the angle between G and G′
    accuracy: jax.Array  # on the test set, percent


def look(loss: Callable[[Any], jax.Array], params: Any, settings: Settings, rate: jax.Array) -> dict[str, jax.Array]:  # noqa: ANN401
    """Measure the landscape of a loss around some parameters.

    Along the gradient g: at x − ηg for η of the multiples of the learning rate. Internal covariate shift as the paper
    has it: for layer i, G is the gradient of its weights before, and G′ after, the layers in front of it take their
    steps.
    """
    gradient = jax.grad(loss)(params)
    slope = length(gradient)

    def at(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, there = jax.value_and_grad(loss)(moved(params, gradient, step))
        return value, length(jax.tree.map(jnp.subtract, there, gradient))

    steps = rate * jnp.array(settings.multiples)
    losses, distances = jax.lax.map(at, steps)
    after, shift, cosine = moved(params, gradient, rate), [], []
    for i in range(2, len(settings.hidden) + 1):
        earlier = {f"{kind}{j}" for kind in ("dense", "norm") for j in range(1, i)}
        mixed = {name: (after if name in earlier else params)[name] for name in params}
        own = gradient[f"dense{i}"]["kernel"]
        other = jax.grad(loss)(mixed)[f"dense{i}"]["kernel"]
        shift.append(jnp.linalg.norm(own - other))
        cosine.append(jnp.vdot(own, other) / (jnp.linalg.norm(own) * jnp.linalg.norm(other)))
    return {
        "loss_range": losses.max() - losses.min(),
        "gradient_distance": distances.max(),
        "beta": (distances / (steps * slope)).max(),
        "shift": jnp.stack(shift),
        "cosine": jnp.stack(cosine),
    }


def length(tree: Any) -> jax.Array:  # noqa: ANN401
    """The ℓ₂ norm of all leaves together."""
    return jnp.sqrt(jnp.stack([jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)]).sum())


def moved(params: Any, gradient: Any, rate: jax.Array) -> Any:  # noqa: ANN401
    """Return the parameters after a step of gradient descent."""
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient)


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure every field of `Landscape` for each kind, as `{kind}_{field}`: (rate, seed, measurement, …)."""
    data = data.first(settings.train_images, settings.test_images)
    examples = data.train.labels.size

    def run(norm: Any, rate: jax.Array, seed: jax.Array) -> Landscape:  # noqa: ANN401
        tx = optax.sgd(rate)
        model = MLP(10, settings.hidden, LayerOptions(norm=norm))
        order = orders(seed, examples, settings.steps + 1, settings.batch_size)
        right = accuracy(model, data.test)

        def at(state: TrainState) -> Landscape:
            batch = data.train.at(order[state.step])  # the one that comes next
            loss = partial(training_loss, model, state, batch, seed)
            return Landscape(**look(loss, state.params, settings, rate), accuracy=right(state))

        state = start(model, tx, data.train, seed)
        return fit(model, tx, state, data.train, order[:-1], at, every=settings.every, seed=seed)[2]

    numbers = {}
    for kind, norm in (("with", NORM), ("without", None), ("noisy", NoisyNorm)):
        found = product(partial(run, norm), np.asarray(settings.rates, np.float32), seeds_of(settings))
        numbers |= {f"{kind}_{field}": values for field, values in found._asdict().items()}
    return numbers


def over_training(numbers: Numbers, kind: str, field: str) -> np.ndarray:
    """The mean of a field over the steps (and layers): (rate, seed)."""
    values = numbers[f"{kind}_{field}"]
    return values.reshape(*values.shape[:2], -1).mean(-1)


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Test two parts: smoother by every measure at every rate, and better in spite of no less covariate shift."""
    mean = {k: {f: over_training(numbers, k, f) for f in Landscape._fields} for k in KINDS}
    last = {k: numbers[f"{k}_accuracy"][:, :, -1] for k in KINDS}
    smoother = np.sum([mean["with"][f].mean(1) < mean["without"][f].mean(1) for f in TITLES], axis=0)
    shift = {k: mean[k]["shift"].mean(1) / mean["without"]["shift"].mean(1) for k in ("with", "noisy")}
    in_spite = [
        bool(
            shift[k][i] >= 1
            and last[k][i].mean() > last["without"][i].mean()
            and differs(last[k][i], last["without"][i])
        )
        for i in range(len(settings.rates))
        for k in ("with", "noisy")
    ]
    parts = [bool((smoother == len(TITLES)).all()), any(in_spite)]
    rows = [
        (f"rate {rate:g}: {text}", *(spread(mean[k][f][i], 3) for k in KINDS))
        for i, rate in enumerate(settings.rates)
        for f, text in ROWS.items()
    ]
    rows += [
        (f"rate {rate:g}: test accuracy at the end (%)", *(spread(last[k][i]) for k in KINDS))
        for i, rate in enumerate(settings.rates)
    ]
    named = list(zip(settings.rates, smoother, shift["with"], shift["noisy"], strict=True))
    counts = ", ".join(f"{n} of {len(TITLES)} at rate {rate:g}" for rate, n, _, _ in named)
    shifts = [f"{own:.2g} and {noisy:.2g} times at rate {rate:g}" for rate, _, own, noisy in named]
    rough = [
        f"At rate {rate:g}, where the landscape is not smoother, the network without norm ends at "
        f"{spread(last['without'][i])}% and the one with it at {spread(last['with'][i])}%."
        for i, (rate, n, _, _) in enumerate(named)
        if n < len(TITLES)
    ]
    return Finding(
        verdict(*parts, smoother.any()),
        f"Measures smoother with the norm: {counts}; shift {', '.join(f'× {own:.2g}' for own in shift['with'])}",
        f"Averaged over the training, so many measures find the landscape smoother with the norm: {counts}. Internal "
        f"covariate shift with the norm, and with noise behind it, is {'; '.join(shifts)} that without. "
        + " ".join([SHIFT[parts[1]], *rough, *([PLATEAU] if rough else [])]),
        Table(("mean over the training", *LABELS.values()), tuple(rows)),
    )


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """Draw the measures of roughness, and the shift, over the steps, one row per rate."""
    grid = figure.subplots(len(settings.rates), len(PANELS), sharex=True, squeeze=False)
    steps = settings.every * np.arange(1, numbers["with_beta"].shape[2] + 1)
    for i, rate in enumerate(settings.rates):
        for axes, (field, title) in zip(grid[i], PANELS.items(), strict=True):
            for kind in KINDS:
                values = numbers[f"{kind}_{field}"][i]
                values = values.mean(-1) if values.ndim > 2 else values
                figures.band(axes, steps, values, COLOURS[kind], LABELS[kind], least=1e-12)
            figures.plain(axes, yscale="log", title="" if i else title)
            axes.title.set_fontsize(8.5)
            axes.tick_params(labelsize=8, which="both")
            axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        grid[i, 0].set_ylabel(f"rate {rate:g}")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


STUDY = Study(
    name="smoothness",
    title="The gain comes from a smoother landscape, not from less covariate shift",
    claim="Batch normalization helps by making the loss smoother along the gradient, and not by reducing internal "
    "covariate shift.",
    source="Santurkar, Tsipras, Ilyas & Mądry 2018, arXiv 1805.11604; one of the tutorials that this project began "
    "with",
    procedure="An MLP with hidden layers of {hidden}, relu, SGD at rates {rates}, batches of {batch_size}, {steps} "
    "steps. Every {every} steps, from the present weights along the gradient by {multiples} times the rate: the range "
    "of the loss, the largest ℓ₂ distance between the gradients, and the largest such distance over the distance "
    "moved (effective β-smoothness). Internal covariate shift as the paper defines it: how far the gradient of a "
    "layer's weights moves when the layers in front of it take their step. With the norm, without, and with the norm "
    "followed by noise of a mean and variance that change at every step.",
    criterion="Reproduced: (1) the mean over the training of all three measures of roughness is smaller with the norm "
    "at every rate, and (2) at some rate, a network with the norm, or with the norm and noise, has at least "
    "as much covariate shift as the one without and yet a higher test accuracy at the end, beyond the noise. "
    "Partly: one of the two, or (1) for some measure at some rate.",
    quick=Settings(),
    full=Settings(seeds=10, first_seed=CONFIRMING, train_images=60_000, test_images=10_000, steps=3000, every=20),
    networks=lambda settings: len(KINDS) * len(settings.rates) * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
    height=4.6,
)
