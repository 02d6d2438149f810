"""How much faster is inference with the norms folded into the convolutions, and do the predictions change?

    python -m benchmarks.inference [--run DIR] [--data-dir DIR] [--batch-sizes 1 32 256] [--seconds 10] [--json FILE]

The network of `python -m train` for images, from the checkpoint of a run, or else trained for an epoch here; once with
its norms, once without, by `jaxbn.fold_network`. Predictions are compared on every test image: of
MNIST where --data-dir names a folder with its IDX files, else of the bundled digits.

    python -m benchmarks.inference --resnet50 flax [--image-size 224] [--batch-sizes 1 32]

A ResNet-50 of Linen modules, 53 norms and random weights, with Flax's norms or this library's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.tree_util import Partial

import jaxbn
from benchmarks import harness
from benchmarks.compiled.step import ResNet50
from benchmarks.norm_act import NormName
from train.config.sections import Config, ModelConfig, OptimizerConfig
from train.data import Dataset, load
from train.inference.classify import forward
from train.network.models import CNN
from train.runs.restored import restore
from train.training import loop
from train.training.plan import make_plan

DIFFERENCE = "largest difference of logits, relative to the largest logit"


@dataclass(frozen=True)
class Options:
    """Images a second in inference, with the norms and with the norms folded away."""

    run: Path | None = None
    """The folder of a run of `python -m train`; None: train for an epoch first."""
    data_dir: Path | None = None
    """Folder with MNIST's IDX files; None: the bundled digits."""
    resnet50: NormName | None = None
    """Instead, a ResNet-50 with these norms."""
    image_size: int = 224
    """Of the ResNet-50's images."""
    batch_sizes: tuple[int, ...] = (1, 32, 256)
    seconds: float = 10.0
    """Time for each batch size."""
    json: Path | None = None
    """Where to save the figures."""
    markdown: bool = False
    """Print the table for pasting into the documentation."""


class Networks(NamedTuple):
    """A network with its norms and without them, as functions of images."""

    normed: Partial
    folded: Partial


def trained(dataset: Dataset) -> Networks:
    """A network after one epoch of Adam."""
    recipe = OptimizerConfig(
        epochs=1, batch_size=64, optimizer="adam", learning_rate=1e-3, schedule="constant", label_smoothing=0.0
    )
    config = Config(model=ModelConfig(network="cnn"), optimizer=recipe)
    plan = make_plan(config, dataset)
    state = loop.initial_state(plan)
    for snapshot in loop.run(plan, loop.compile_programs(plan, state), state):
        state = snapshot.state
    return both(plan.model, state.variables, dataset.test_inputs[:1])


def of_run(folder: Path) -> Networks:
    """The network of a saved run."""
    run = restore(folder, folder.parent)
    if not isinstance(run.model, CNN):
        raise ValueError("this is no convolutional network: only such ones are timed here")
    return both(run.model, run.state.variables, np.zeros((1, *run.data.input_shape), run.data.input_dtype))


def both(model: Any, variables: Any, images: np.ndarray) -> Networks:
    """The network of `python -m train` as a function of uint8 images, with norms and folded."""
    return without_norms(forward(model, variables), images)


def resnet50(norm: NormName, images: np.ndarray) -> Networks:
    """A ResNet-50 with initial parameters, and with statistics other than 0 and 1."""
    model: Any = ResNet50(norm, use_running_average=True, shortcut_norm=True)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    signs = lambda v: np.where(np.arange(v.size) % 2, 0.1, -0.1).astype(v.dtype)  # noqa: E731
    statistics = jax.tree.map(lambda v: 0.5 * v + signs(v), variables["batch_stats"])
    return without_norms(Partial(model.apply, {**variables, "batch_stats": statistics}), images)


def without_norms(normed: Partial, images: np.ndarray) -> Networks:
    """A network with its norms, and the same function with the norms folded."""
    folded, report = jaxbn.fold_network(normed, images)
    if report.kept:
        raise ValueError(f"not all norms fold:\n{report}")
    return Networks(normed, folded)


@jax.jit
def call(network: Partial, images: jax.Array | np.ndarray) -> jax.Array:
    """Images to logits; the weights are arguments of the program."""
    return network(images)


def logits_of(network: Partial, images: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """The logits of every image."""
    return np.concatenate([call(network, images[i : i + batch_size]) for i in range(0, len(images), batch_size)])


def compared(networks: Networks, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Print the differences, and return whether both networks predict the same."""
    normed, plain = (logits_of(network, images) for network in networks)
    return {
        "test images": len(normed),
        "same prediction": int((normed.argmax(-1) == plain.argmax(-1)).sum()),
        "accuracy with norms": float((normed.argmax(-1) == labels).mean()),
        "accuracy folded": float((plain.argmax(-1) == labels).mean()),
        DIFFERENCE: difference(normed, plain),
    }


def difference(normed: np.ndarray, plain: np.ndarray) -> float:
    """The largest difference, relative to the largest logit."""
    return float(np.abs(normed - plain).max() / np.abs(normed).max())


def main(options: Options) -> None:
    """Compare the predictions; time, print, save."""
    if options.resnet50 is None:
        dataset = load("digits") if options.data_dir is None else load("mnist", data_dir=options.data_dir)
        networks = trained(dataset) if options.run is None else of_run(options.run)
        name, inputs = f"The {dataset.name} CNN", dataset.test_inputs
        agreement = {"dataset": dataset.name, **compared(networks, inputs, dataset.test_labels)}
    else:
        name, size = "ResNet-50", options.image_size
        inputs = np.random.default_rng(0).normal(size=(max(options.batch_sizes), size, size, 3)).astype(np.float32)
        networks = resnet50(options.resnet50, inputs)
        agreement = {DIFFERENCE: difference(*(np.asarray(call(network, inputs[:1])) for network in networks))}

    rows: list[Sequence[str]] = []
    records: list[dict[str, object]] = [{"name": "agreement", **agreement}]
    for batch_size in options.batch_sizes:
        images = jnp.asarray(inputs[np.arange(batch_size) % len(inputs)])
        functions = {
            title: partial(call, network, images)
            for title, network in zip(("with norms", "folded"), networks, strict=True)
        }
        timings = harness.time_side_by_side(functions, options.seconds)
        for title, timing in timings.items():
            low, median, high = (batch_size / seconds for seconds in reversed(timing.quartiles))
            ratio = 1 / timing.ratio(timings["with norms"])
            quartiles = f"{low:,.4g} to {high:,.4g}"
            rows.append((f"{title}, batch {batch_size}", f"{median:,.4g}", quartiles, f"{ratio:.2f}"))
            records.append({"name": title, "batch_size": batch_size, "images_per_second": median, "ratio": ratio})
    facts = harness.environment()
    harness.show_facts(facts | agreement)
    columns = ("inference", "images/s", "quartiles", "speed / with norms")
    harness.show_table(f"{name}'s inference", columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
