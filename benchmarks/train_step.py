"""How many images a second does the whole training step of the MNIST CNN take: ours, plain Flax, PyTorch.

    python -m benchmarks.train_step [--batch-sizes 32 128] [--seconds 20] [--json FILE] [--markdown]

Every library does the same, forward, backward and Adam on a resident set of uint8 images, in its usual way. Ours is
the program of `python -m train` (a loop on the device); Flax is one jitted step a batch with `nn.Conv`, `nn.BatchNorm`
and `nn.max_pool`; PyTorch is eager, in both memory formats. A call is as many steps as make 3,072 images, a twentieth
of an epoch of MNIST, which is what the training program does between two reports.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from benchmarks import harness
from train.convolution import convolution_for
from train.models import CNN
from train.step import Batches, init_state, train_step, train_steps

IMAGES = 3072  # a twentieth of an epoch, as a call of the training program


@dataclass(frozen=True)
class Options:
    """Images a second of the whole training step, side by side."""

    batch_sizes: tuple[int, ...] = (32, 128)
    seconds: float = 20.0
    """Time for each batch size."""
    json: Path | None = None
    """Where to save the figures."""
    markdown: bool = False
    """Print the table for pasting into the documentation."""


class PlainCNN(nn.Module):
    """The same network as its users write it with Flax alone."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images to logits."""
        for features in (32, 64):
            x = nn.Conv(features, (3, 3), padding="VALID", use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(nn.Dense(256)(x.reshape(x.shape[0], -1)))


def data() -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels: the time does not depend on what they show."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (IMAGES, 28, 28, 1), np.uint8), rng.integers(0, 10, IMAGES).astype(np.int32)


def ours(batch_size: int) -> Callable[[], object]:
    """The loop on the device that `python -m train` runs."""
    images = Batches(*map(jnp.asarray, data()))
    model, tx = CNN(10, convolution=convolution_for(jax.default_backend())), optax.adam(1e-3)
    program = jax.jit(partial(train_steps, model, tx, batch_size=batch_size), donate_argnums=0)
    order, span = jnp.arange(IMAGES), (jnp.int32(0), jnp.int32(IMAGES // batch_size))
    state = init_state(model, tx, images.inputs, seed=0)

    def run() -> object:
        nonlocal state
        state, metrics = program(state, images, order, span)
        return metrics

    return run


def plain_flax(batch_size: int) -> Callable[[], object]:
    """One jitted step a batch."""
    images = Batches(*map(jnp.asarray, data()))
    model, tx = PlainCNN(), optax.adam(1e-3)
    program = jax.jit(partial(train_step, model, tx), donate_argnums=0)
    state = init_state(model, tx, images.inputs, seed=0)
    batches = [Batches(*(a[i : i + batch_size] for a in images)) for i in range(0, IMAGES, batch_size)]

    def run() -> object:
        nonlocal state
        metrics = None
        for batch in batches:
            state, metrics = program(state, batch)
        return metrics

    return run


def pytorch(batch_size: int, channels_last: bool) -> Callable[[], object]:
    """Eager PyTorch, as in its tutorials."""
    import torch
    from torch import nn as tnn

    device = harness.torch_device()
    images, labels = (torch.from_numpy(a).to(device) for a in data())
    layers = (
        *(tnn.Conv2d(1, 32, 3, bias=False), tnn.BatchNorm2d(32), tnn.ReLU(), tnn.MaxPool2d(2)),
        *(tnn.Conv2d(32, 64, 3, bias=False), tnn.BatchNorm2d(64), tnn.ReLU(), tnn.MaxPool2d(2)),
        *(tnn.Flatten(), tnn.Linear(1600, 256), tnn.Linear(256, 10)),
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = tnn.Sequential(*layers).to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    optimizer, loss_of = torch.optim.Adam(model.parameters(), 1e-3), tnn.CrossEntropyLoss()
    images, labels = images.permute(0, 3, 1, 2), labels.long()

    def run() -> object:
        for i in range(0, IMAGES, batch_size):
            x = (images[i : i + batch_size].float() / 255).contiguous(memory_format=layout)
            optimizer.zero_grad()
            loss = loss_of(model(x), labels[i : i + batch_size])
            loss.backward()
            optimizer.step()
        return None

    return run


def contenders(batch_size: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name; PyTorch where it is installed."""
    functions = {"jaxbn": ours(batch_size), "Flax": plain_flax(batch_size)}
    try:
        functions["PyTorch"] = pytorch(batch_size, channels_last=False)
        functions["PyTorch channels-last"] = pytorch(batch_size, channels_last=True)
    except ImportError:
        print("PyTorch is not installed: left out (pip install torch)")
    return functions


def main(options: Options) -> None:
    """Times, prints, saves."""
    rows: list[Sequence[str]] = []
    records = []
    for batch_size in options.batch_sizes:
        timings = harness.time_side_by_side(contenders(batch_size), options.seconds)
        for name, timing in timings.items():
            low, median, high = (IMAGES / seconds for seconds in reversed(timing.quartiles))
            ratio = 1 / timing.ratio(timings["jaxbn"])
            rows.append((f"{name}, batch {batch_size}", f"{median:,.0f}", f"{low:,.0f} to {high:,.0f}", f"{ratio:.2f}"))
            records.append({"name": name, "batch_size": batch_size, "images_per_second": median, "ratio": ratio})
    facts = harness.environment()
    harness.show_facts(facts)
    columns = ("training step", "images/s", "quartiles", "speed / ours")
    harness.show_table("The MNIST CNN's training step", columns, rows, options.markdown)
    harness.save_json(options.json, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
