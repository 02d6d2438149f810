"""Before or after the activation?"""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from train.network.build import INITIALIZERS
from train.network.convolution import convolution_for
from train.network.models import CNN, MLP, LayerOptions
from train.studies import figures
from train.studies.study import CONFIRMING, Data, Finding, Numbers, Study, Table, differs, seeds_of, spread, verdict
from train.studies.sweep import NORM, accuracy, fit, orders, product, start

PLACES = ("before", "after", "none")
COLOURS = {"before": figures.WITH, "after": figures.THIRD, "none": figures.WITHOUT}
NETWORKS = {"mlp-elu": "MLP 300-100, elu", "mlp-relu": "MLP 300-100, relu", "cnn": "CNN, relu"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A few epochs of some thousands of images."""

    seeds: int = 5
    first_seed: int = 0
    train_images: int = 5000
    test_images: int = 2000
    channels: tuple[int, ...] = (4, 8)
    hidden: int = 64
    learning_rate: float = 1e-3
    batch_size: int = 50
    mlp_steps: int = 400
    cnn_steps: int = 200


def build(network: str, place: str, settings: Settings) -> nn.Module:
    """A network with the norm in one place; a layer in front of a norm has no bias."""
    layers = LayerOptions(norm=None if place == "none" else NORM, placement="after" if place == "after" else "before")
    if network == "cnn":
        return CNN(10, settings.channels, settings.hidden, layers, convolution_for(jax.default_backend()))
    layers = dataclasses.replace(
        layers,
        activation=nn.elu if network == "mlp-elu" else nn.relu,
        kernel_init=INITIALIZERS["he"],
        logits_init=INITIALIZERS["glorot"],
    )
    return MLP(10, (300, 100), layers, norm_input=True)


def measure(data: Data, settings: Settings) -> Numbers:
    """Measure, for each network, the test accuracy after a quarter of the steps and at the end: (place, seed, 2)."""
    data = data.first(settings.train_images, settings.test_images)
    tx = optax.adam(settings.learning_rate)

    def run(model: nn.Module, steps: int, seed: jax.Array) -> Any:  # noqa: ANN401
        order = orders(seed, data.train.labels.size, steps, settings.batch_size)
        state, look = start(model, tx, data.train, seed), accuracy(model, data.test)
        early = fit(model, tx, state, data.train, order[: steps // 4], look, every=steps // 4)
        late = fit(model, tx, early[0], data.train, order[steps // 4 :], look, every=steps - steps // 4)
        return jax.numpy.concatenate([early[2], late[2]])

    numbers = {}
    for network in NETWORKS:
        steps = settings.cnn_steps if network == "cnn" else settings.mlp_steps
        found = [product(partial(run, build(network, place, settings), steps), seeds_of(settings)) for place in PLACES]
        numbers[network] = np.stack(found)
    return numbers


def winners(numbers: Numbers) -> dict[str, str]:
    """The better place at the end for each network, "before" or "after"; "neither" within the noise."""
    found = {}
    for network in NETWORKS:
        before, after = numbers[network][0, :, -1], numbers[network][1, :, -1]
        better = "before" if before.mean() > after.mean() else "after"
        found[network] = better if differs(before, after) else "neither"
    return found


def conclude(numbers: Numbers, settings: Settings) -> Finding:
    """Test that no place is better in every network."""
    won = winners(numbers)
    sole = set(won.values()) if len(set(won.values())) == 1 else set()
    everywhere = sole & {"before", "after"}
    texts = [f"{NETWORKS[n]}: {w if w != 'neither' else 'no difference beyond the noise'}" for n, w in won.items()]
    gap = max(abs(numbers[n][0, :, -1].mean() - numbers[n][1, :, -1].mean()) for n in NETWORKS)
    early = [numbers[n][:2, :, 0].mean(1).max() - numbers[n][2, :, 0].mean() for n in NETWORKS]
    late = [numbers[n][:2, :, 1].mean(1).max() - numbers[n][2, :, 1].mean() for n in NETWORKS]
    rows = tuple(
        (f"{NETWORKS[network]}, {place}", *(spread(numbers[network][i, :, j]) for j in (0, 1)))
        for network in NETWORKS
        for i, place in enumerate(PLACES)
    )
    return Finding(
        verdict(not everywhere),
        f"The norm is better {everywhere.pop()} the activation in every network"
        if everywhere
        else f"Before or after the activation: no rule, and at the end at most {gap:.1f} points between them",
        f"Better place by network: {'; '.join(texts)}. The two places end up to {gap:.1f} points of test accuracy "
        f"apart. Against no norm at all the better place gains {_points(early)} points after a quarter of the steps "
        f"and {_points(late)} at the end.",
        Table(("network, place of the norm", "test accuracy after a quarter (%)", "at the end (%)"), rows),
    )


def _points(values: list[Any]) -> str:
    return " / ".join(f"{value:+.1f}" for value in values)


def draw(numbers: Numbers, settings: Settings, figure: Figure) -> None:
    """Draw the accuracy after a quarter of the steps and at the end, by network."""
    panels = figure.subplots(1, 2, sharey=True)
    x = np.arange(len(NETWORKS))
    for j, axes in enumerate(panels):
        for i, place in enumerate(PLACES):
            values = np.stack([numbers[network][i, :, j] for network in NETWORKS])
            label = "no norm" if place == "none" else f"{place} the activation"
            figures.points(axes, x + 0.2 * (i - 1), values, COLOURS[place], label)
        axes.set_xticks(x, list(NETWORKS.values()), fontsize=8)
        figures.plain(axes)
        axes.set_title("at the end" if j else "after a quarter of the steps", fontsize=10)
    panels[0].set(ylabel="test accuracy (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


STUDY = Study(
    name="placement",
    title="Before or after the activation: try both",
    claim="The paper puts the norm before the activation; which place is better depends on the task, so try both.",
    source="three of the tutorials that this project began with; Ioffe & Szegedy 2015, section 3.2",
    procedure="A tutorial's MLP 784-300-100-10 (norm of the input as well) with elu and with relu, and a CNN of "
    "{channels} channels and {hidden} hidden units; Adam at {learning_rate}, batches of {batch_size}, {train_images} "
    "training and {test_images} test images, {mlp_steps} steps ({cnn_steps} for the CNN); the norm before the "
    "activation (no bias in front of it), after it, and none.",
    criterion="Reproduced: neither place is better, beyond the noise, in all three networks at the end of training. "
    "There is no partial reproduction.",
    quick=Settings(),
    full=Settings(
        seeds=10,
        first_seed=CONFIRMING,
        train_images=60_000,
        test_images=10_000,
        channels=(16, 32),
        hidden=128,
        mlp_steps=6000,
        cnn_steps=3000,
    ),
    networks=lambda settings: len(NETWORKS) * len(PLACES) * settings.seeds,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
