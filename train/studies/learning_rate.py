"""Do larger learning rates converge, and is training faster?"""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from train.network.convolution import Convolution, convolution_for
from train.network.models import LayerOptions
from train.network.pooling import max_pool
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, seeds_of, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start

KINDS = ("with", "partly", "without")
LABELS = {"with": "with norm", "partly": "convolutions only", "without": "without"}
COLOURS = {"with": figures.WITH, "partly": figures.THIRD, "without": figures.WITHOUT}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The quick form: a small CNN."""

    seeds: int = 3
    first_seed: int = 0
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    channels: tuple[int, ...] = (4, 8)
    hidden: int = 64
    train_images: int = 5000
    test_images: int = 512
    batch_size: int = 64
    steps: int = 150
    every: int = 5
    target: float = 90.0


class Network(nn.Module):
    """Convolution, norm, relu and pooling for each of `channels`; a hidden layer with relu, or norm and relu; logits.

    Attributes:
        channels: of the convolutions.
        hidden: units of the hidden layer.
        norm: behind each convolution; None for none.
        hidden_norm: behind the hidden layer.
        convolution: what `flax.linen.Conv` calls.

    """

    channels: tuple[int, ...]
    hidden: int
    norm: Any
    hidden_norm: Any
    convolution: Convolution

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images (N, H, W, C) to logits (N, 10)."""
        layers = LayerOptions(norm=self.norm)
        conv = partial(nn.Conv, kernel_size=(3, 3), padding="VALID", conv_general_dilated=self.convolution)
        for i, features in enumerate(self.channels, 1):
            x = conv(features, use_bias=layers.bias, name=f"conv{i}")(x)
            x = layers.normalize_and_activate(x, train, f"norm{i}", max_pool=max_pool)
        layers = LayerOptions(norm=self.hidden_norm)
        x = nn.Dense(self.hidden, use_bias=layers.bias, name="dense")(x.reshape(x.shape[0], -1))
        return nn.Dense(10, name="logits")(layers.normalize_and_activate(x, train, "norm"))


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure the test accuracy for each kind of network: (rate, seed, measurement)."""
    data = data.first(settings.train_images, settings.test_images)
    examples = data.train.labels.size
    convolution = convolution_for(jax.default_backend())

    def run(norms: tuple[Any, Any], rate: jax.Array, seed: jax.Array) -> jax.Array:
        model = Network(settings.channels, settings.hidden, *norms, convolution)
        tx = optax.sgd(rate)
        order = orders(seed, examples, settings.steps, settings.batch_size)
        state = start(model, tx, data.train, seed)
        return fit(model, tx, state, data.train, order, accuracy(model, data.test), every=settings.every)[2]

    axes = np.asarray(settings.rates, np.float32), seeds_of(settings)
    norms = {"with": (NORM, NORM), "partly": (NORM, None), "without": (None, None)}
    return {kind: product(partial(run, each), *axes) for kind, each in norms.items()}


def steps_to_target(values: np.ndarray, settings: Settings) -> np.ndarray:
    """The first measured step at which the accuracy reaches the target, along the last axis; inf if it never does.

    Example:
        >>> steps_to_target(np.array([[50.0, 95.0, 80.0], [0.0, 1.0, 2.0]]), Settings(every=5, target=90.0))
        array([10., inf])

    """
    reached = values >= settings.target
    return np.where(reached.any(-1), settings.every * (1 + reached.argmax(-1)), np.inf)


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Compare the largest rate at which every seed reaches the target, and the fewest steps at any rate."""
    steps = {kind: steps_to_target(numbers[kind], settings) for kind in KINDS}
    largest, fewest = {}, {}
    for kind, values in steps.items():
        usable = np.isfinite(values).all(1)
        largest[kind] = max(np.array(settings.rates)[usable], default=0.0)
        fewest[kind] = float(values.mean(1).min())
    higher, faster = largest["with"] > largest["without"], fewest["with"] < fewest["without"]
    rates = {kind: f"at rates up to {rate:g}" if rate else "at no rate" for kind, rate in largest.items()}
    best = {kind: f" ({steps:.0f} steps at the best rate)" if largest[kind] else "" for kind, steps in fewest.items()}
    rows = tuple(
        (f"{rate:g}", *(cell for k in KINDS for cell in _cells(steps[k][i], numbers[k][i, :, -1])))
        for i, rate in enumerate(settings.rates)
    )
    return Finding(
        verdict(higher, faster),
        f"With the norm every seed reaches {settings.target:g}% {rates['with']}; without, {rates['without']}",
        f"Every seed reaches {settings.target:g}% test accuracy within {settings.steps:,} steps {rates['with']} with "
        f"the norm{best['with']}, {rates['without']} without{best['without']}, and {rates['partly']} with the norm "
        f"behind the convolutions only{best['partly']}: one layer without norm sets the limit for all. (The paper, "
        "Inception on ImageNet: 31.0 million steps to 72.2% without, 13.3 with at the same rate, 2.1 with at five "
        "times the rate.)",
        Table(
            ("rate", *(f"{LABELS[kind]}: {what}" for kind in KINDS for what in ("steps", "last accuracy (%)"))), rows
        ),
    )


def _cells(steps: np.ndarray, last: np.ndarray) -> tuple[str, str]:
    reached = steps[np.isfinite(steps)]
    few = spread(reached, 0) if reached.size else "never"
    if 0 < reached.size < steps.size:
        few = f"{reached.size} of {steps.size} seeds: {reached.mean():.0f}"
    return few, spread(last)


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """Draw the steps to the target, and the accuracy at the end, by rate."""
    left, right = figure.subplots(1, 2)
    rates = np.array(settings.rates)
    for kind in KINDS:
        steps = steps_to_target(numbers[kind], settings)
        usable = np.isfinite(steps).all(1)
        figures.band(left, rates[usable], steps[usable].T, COLOURS[kind], LABELS[kind], marker="o")
        height = settings.steps * (1.11 + 0.07 * KINDS.index(kind))
        left.plot(rates[~usable], np.full((~usable).sum(), height), "x", color=COLOURS[kind], markersize=5)
        figures.band(right, rates, numbers[kind][:, :, -1].T, COLOURS[kind], LABELS[kind], marker="o")
    title = f"steps to {settings.target:g}% test accuracy (fewer is better)"
    figures.plain(left, xscale="log", ylim=(0, settings.steps * 1.42), xlabel="learning rate", ylabel="steps")
    left.set_title(title, fontsize=10)
    left.axhspan(settings.steps * 1.05, settings.steps * 1.42, color=figures.GREY, alpha=0.15, linewidth=0)
    left.text(rates[0], settings.steps * 1.31, "×: some seed does not reach it", fontsize=9, va="bottom")
    left.set_yticks([tick for tick in left.get_yticks() if tick <= settings.steps])
    figures.plain(right, xscale="log", ylim=(0, 102), xlabel="learning rate", ylabel="test accuracy (%)")
    right.set_title(f"accuracy after {settings.steps:,} steps", fontsize=10)
    right.legend(frameon=False, loc="lower left")


STUDY = Study(
    name="learning-rate",
    title="Larger learning rates converge, and training is faster",
    claim="With batch normalization larger learning rates converge, and fewer steps lead to the same accuracy.",
    source="Ioffe & Szegedy 2015, section 4.2.2; two of the tutorials that this project began with",
    procedure="A CNN of {channels} channels and {hidden} hidden units, with the norm behind every layer but the "
    "last, behind the convolutions only, and without, on {train_images} training images, plain SGD at rates {rates}, "
    "batches of {batch_size}, {steps} steps; test accuracy (of {test_images} images) every {every} steps.",
    criterion="Reproduced: (1) the largest rate at which every seed reaches {target}% test accuracy within {steps} "
    "steps is larger with the norm behind every layer than without any, and (2) so is the speed: at the best "
    "rate of each, the mean number of steps to {target}% is smaller with the norm. Partly: one of the two.",
    quick=Settings(),
    full=Settings(
        seeds=10,
        first_seed=CONFIRMING,
        channels=(16, 32),
        hidden=128,
        train_images=60_000,
        test_images=2000,
        steps=1000,
        every=20,
        target=98.0,
    ),
    networks=lambda settings: 3 * len(settings.rates) * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
