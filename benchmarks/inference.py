"""What does folding the norms into the convolutions bring in inference, and does it change what is predicted.

    python -m benchmarks.inference [--run DIR] [--data-dir DIR] [--batch-sizes 1 32 256] [--seconds 10] [--json FILE]

The network of `python -m train` for images, from the checkpoint of a run, or else trained for an epoch here; once with
its norms, once without, by `jaxbn.fold_network`. Predictions are compared on every test image: of
MNIST where --data-dir names a folder with its IDX files, else of the bundled digits.

    python -m benchmarks.inference --resnet50 [--image-size 224] [--batch-sizes 1 32]

A ResNet-50 of Flax modules with random weights and 53 norms, Flax's or this library's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import harness
from train.config.sections import Config, ModelConfig, OptimizerConfig
from train.data import Dataset, load
from train.network.models import CNN, MLP
from train.runs.restored import restore
from train.training import loop
from train.training.plan import make_plan
from train.training.step import TrainState, prepare


@dataclass(frozen=True)
class Options:
    """Images a second in inference, with the norms and with the norms folded away."""

    run: Path | None = None
    """The folder of a run of `python -m train`; None: train for an epoch first."""
    data_dir: Path | None = None
    """Folder with MNIST's IDX files; None: the bundled digits."""
    batch_sizes: tuple[int, ...] = (1, 32, 256)
    seconds: float = 10.0
    """Time for each batch size."""
    json: Path | None = None
    """Where to save the figures."""
    markdown: bool = False
    """Print the table for pasting into the documentation."""


class Network(NamedTuple):
    """A network, and its variables."""

    model: CNN
    variables: dict[str, Any]


def trained(dataset: Dataset) -> tuple[Network, Network]:
    """A network after one epoch of Adam, with its norms and folded."""
    recipe = OptimizerConfig(
        epochs=1, batch_size=64, optimizer="adam", learning_rate=1e-3, schedule="constant", label_smoothing=0.0
    )
    config = Config(model=ModelConfig(network="cnn"), optimizer=recipe)
    plan = make_plan(config, dataset)
    state = loop.initial_state(plan)
    for snapshot in loop.run(plan, loop.compile_programs(plan, state), state):
        state = snapshot.state
    return both(plan.model, state, config)


def of_run(folder: Path) -> tuple[Network, Network]:
    """The network of a run, with its norms and folded."""
    run = restore(folder, folder.parent)
    return both(run.model, run.state, run.config)


def both(model: CNN | MLP, state: TrainState, config: Config) -> tuple[Network, Network]:
    """A network with its norms, and the same function without."""
    if not isinstance(model, CNN):
        raise ValueError("this is no convolutional network: only such ones are timed here")
    folded = fold_norms(model, state.params, state.batch_stats, config.norm.norm_epsilon)
    assert isinstance(folded.model, CNN)
    return Network(model, state.variables), Network(folded.model, folded.variables)


def program(network: Network) -> Callable[[jax.Array | np.ndarray], jax.Array]:
    """Images (N, H, W, C) of bytes to logits (N, classes)."""
    apply = jax.jit(lambda variables, images: network.model.apply(variables, prepare(images), train=False))
    return partial(apply, network.variables)


def logits_of(network: Network, images: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """Of every image."""
    compiled = program(network)
    return np.concatenate([compiled(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])


def main(options: Options) -> None:
    """Compares the predictions; times, prints, saves."""
    dataset = load("digits") if options.data_dir is None else load("mnist", data_dir=options.data_dir)
    normed_network, folded = trained(dataset) if options.run is None else of_run(options.run)
    networks = {"with norms": normed_network, "folded": folded}

    normed, plain = (logits_of(network, dataset.test_inputs) for network in networks.values())
    agreement = {
        "test images": len(normed),
        "same prediction": int((normed.argmax(-1) == plain.argmax(-1)).sum()),
        "accuracy with norms": float((normed.argmax(-1) == dataset.test_labels).mean()),
        "accuracy folded": float((plain.argmax(-1) == dataset.test_labels).mean()),
        "largest difference of logits, relative to the largest logit": float(
            np.abs(normed - plain).max() / np.abs(normed).max()
        ),
    }

    rows: list[Sequence[str]] = []
    records: list[dict[str, object]] = [{"name": "agreement", "dataset": dataset.name, **agreement}]
    for batch_size in options.batch_sizes:
        images = dataset.test_inputs[np.arange(batch_size) % len(dataset.test_inputs)]
        functions = {name: partial(program(network), jnp.asarray(images)) for name, network in networks.items()}
        timings = harness.time_side_by_side(functions, options.seconds)
        for name, timing in timings.items():
            low, median, high = (batch_size / seconds for seconds in reversed(timing.quartiles))
            ratio = 1 / timing.ratio(timings["with norms"])
            rows.append((f"{name}, batch {batch_size}", f"{median:,.0f}", f"{low:,.0f} to {high:,.0f}", f"{ratio:.2f}"))
            records.append({"name": name, "batch_size": batch_size, "images_per_second": median, "ratio": ratio})
    facts = harness.environment()
    harness.show_facts(facts | agreement)
    columns = ("inference", "images/s", "quartiles", "speed / with norms")
    harness.show_table(f"The {dataset.name} CNN's inference", columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
