"""What does folding the norms into the convolutions bring in inference, and does it change what is predicted.

    python -m benchmarks.inference [--run DIR] [--data-dir DIR] [--batch-sizes 1 32 256] [--seconds 10] [--json FILE]

The network of `python -m train` for images, from `variables.npz` in the folder of a run, or else trained for an epoch
here; once with its norms, once with `jaxbn.fold` applied to each convolution and no norm. Predictions are compared on
every test image: of MNIST where --data-dir names a folder with its IDX files, else of the bundled digits.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax.traverse_util import unflatten_dict

import jaxbn
import jaxbn.linen
from benchmarks import harness
from train.data import Dataset, load
from train.network.convolution import convolution_for
from train.network.pooling import max_pool


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


class Network(nn.Module):
    """The CNN of `python -m train`, with its norms, or with a bias in each convolution instead.

    Attributes:
        channels: features of each convolution.
        hidden: features of the dense layer before the logits.
        num_classes: logits.
        epsilon: of the norms; None for the folded network.

    """

    channels: Sequence[int]
    hidden: int
    num_classes: int
    epsilon: float | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images (N, H, W, 1) of bytes to logits (N, num_classes)."""
        x = x.astype(jnp.float32) / 255
        convolution = convolution_for(jax.default_backend())
        for i, features in enumerate(self.channels, 1):
            conv = partial(nn.Conv, features, (3, 3), padding="VALID", conv_general_dilated=convolution)
            x = conv(use_bias=self.epsilon is None, name=f"conv{i}")(x)
            if self.epsilon is not None:
                norm = partial(jaxbn.linen.BatchNorm, momentum=0.9, epsilon=self.epsilon, name=f"norm{i}")
                x = norm(use_running_average=not train)(x)
            x = max_pool(nn.relu(x))
        x = nn.Dense(self.hidden, name="dense")(x.reshape(x.shape[0], -1))
        return nn.Dense(self.num_classes, name="logits")(x)


def trained(dataset: Dataset, batch_size: int = 64) -> tuple[Network, Any]:
    """A network after one epoch of Adam, and its variables."""
    model = Network((32, 64), 256, len(dataset.class_names), epsilon=1e-5)
    tx = optax.adam(1e-3)
    images, labels = jnp.asarray(dataset.train_inputs), jnp.asarray(dataset.train_labels)

    def loss(params: Any, batch_stats: Any, rows: jax.Array) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = model.apply(variables, images[rows], train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
        return losses.mean(), updates["batch_stats"]

    def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
        params, batch_stats, state = carry
        gradients, batch_stats = jax.grad(loss, has_aux=True)(params, batch_stats, rows)
        updates, state = tx.update(gradients, state)
        return (optax.apply_updates(params, updates), batch_stats, state), None

    variables = jax.jit(model.init)(jax.random.key(0), images[:2])
    steps = len(labels) // batch_size
    order = jax.random.permutation(jax.random.key(1), len(labels))[: steps * batch_size].reshape(steps, -1)
    start = variables["params"], variables["batch_stats"], tx.init(variables["params"])
    params, batch_stats, _ = jax.jit(partial(jax.lax.scan, step))(start, order)[0]
    return model, {"params": params, "batch_stats": batch_stats}


def of_run(folder: Path) -> tuple[Network, Any]:
    """The network of a run, and its variables."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with np.load(folder / "variables.npz") as file:
        variables = unflatten_dict({name: jnp.asarray(array) for name, array in file.items()}, sep="/")
    params = variables["params"]
    channels = [params[f"conv{i}"]["kernel"].shape[-1] for i in range(1, 1 + sum("conv" in name for name in params))]
    if not channels:
        raise ValueError(f"{folder} holds no convolutional network: only such ones are timed here")
    hidden, num_classes = (params[name]["kernel"].shape[-1] for name in ("dense", "logits"))
    return Network(tuple(channels), hidden, num_classes, config["norm"]["norm_epsilon"]), variables


def folded(model: Network, variables: Any) -> tuple[Network, Any]:
    """The same function without norms."""
    assert model.epsilon is not None
    params = dict(variables["params"])
    for i in range(1, 1 + len(model.channels)):
        norm, stats = params.pop(f"norm{i}"), variables["batch_stats"][f"norm{i}"]
        kernel, bias = jaxbn.fold(
            jaxbn.BatchNormParams(norm["scale"], norm["bias"]),
            jaxbn.BatchNormState(stats["mean"], stats["var"], jnp.zeros((), jnp.int32)),
            params[f"conv{i}"]["kernel"],
            epsilon=model.epsilon,
        )
        params[f"conv{i}"] = {"kernel": kernel, "bias": bias}
    return model.clone(epsilon=None), {"params": params}


def logits_of(model: Network, variables: Any, images: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """Of every image."""
    program = jax.jit(model.apply)
    return np.concatenate([program(variables, images[i : i + batch_size]) for i in range(0, len(images), batch_size)])


def call(model: Network, variables: Any, images: np.ndarray) -> Callable[[], object]:
    """One batch through the network, on the device."""
    return partial(jax.jit(model.apply), variables, jnp.asarray(images))


def main(options: Options) -> None:
    """Compares the predictions; times, prints, saves."""
    dataset = load("digits") if options.data_dir is None else load("mnist", data_dir=options.data_dir)
    model, variables = trained(dataset) if options.run is None else of_run(options.run)
    networks = {"with norms": (model, variables), "folded": folded(model, variables)}

    normed, plain = (logits_of(*network, dataset.test_inputs) for network in networks.values())
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
        functions = {name: call(*network, images) for name, network in networks.items()}
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
