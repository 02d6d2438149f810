"""How many images per second does the training step of the MNIST CNN process, in ours and in every other library?

    python -m benchmarks.train_step [--batch-sizes 32 128] [--seconds 20] [--json FILE] [--markdown]

Every library does the same, forward, backward and Adam on a resident set of uint8 images, in its usual way. Ours is
the program of `python -m train` (a loop on the device); Flax, Haiku and Equinox run one jitted step per batch; Keras is
`model.fit`, on JAX, and on PyTorch in a process of its own; PyTorch is eager or compiled by `torch.compile`, in both
memory formats. A call is as many steps as make 3,072 images, a twentieth of an epoch of MNIST, which is what the
training program does between two reports. The rates of the machine, copying and multiplying, come from the same run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import tyro

from benchmarks import harness
from benchmarks.case import OURS
from benchmarks.installed import installed
from benchmarks.steps.data import IMAGES, starts
from benchmarks.steps.equinox_step import equinox
from benchmarks.steps.flax_step import plain_flax
from benchmarks.steps.haiku_step import haiku
from benchmarks.steps.keras_step import keras_elsewhere, keras_on_jax
from benchmarks.steps.ours_step import ours
from benchmarks.steps.torch_step import pytorch


@dataclass(frozen=True)
class Options:
    """Images per second of the whole training step, side by side."""

    batch_sizes: tuple[int, ...] = (32, 128)
    seconds: float = 20.0
    """Time for each batch size."""
    json: Path | None = None
    """Where to save the figures."""
    markdown: bool = False
    """Print the table for pasting into the documentation."""


class Contender(NamedTuple):
    """A library's training step."""

    needs: tuple[str, ...]  # what must be installed
    make: Callable[[int], Callable[[], object]]  # from the batch size; what is made trains on IMAGES images a call


CONTENDERS = {
    OURS: Contender(("jaxbn",), ours),
    "Flax": Contender(("flax",), plain_flax),
    "Haiku": Contender(("haiku",), haiku),
    "Equinox": Contender(("equinox",), equinox),
    "Keras (JAX)": Contender(("keras",), keras_on_jax),
    "Keras (torch)": Contender(("keras", "torch"), keras_elsewhere),
    "PyTorch": Contender(("torch",), partial(pytorch, channels_last=False)),
    "PyTorch channels-last": Contender(("torch",), partial(pytorch, channels_last=True)),
    "PyTorch compiled": Contender(("torch", "torch.compile"), partial(pytorch, channels_last=False, compiled=True)),
    "PyTorch compiled, channels-last": Contender(
        ("torch", "torch.compile"), partial(pytorch, channels_last=True, compiled=True)
    ),
}


def measure(batch_size: int, seconds: float) -> list[dict[str, object]]:
    """A record for each library that is installed."""
    usable = {name: each.make for name, each in CONTENDERS.items() if all(map(installed, each.needs))}
    timings = harness.time_side_by_side({name: make(batch_size) for name, make in usable.items()}, seconds)
    images, records = batch_size * len(starts(batch_size)), []
    for name, timing in timings.items():
        low, median, high = (images / seconds for seconds in reversed(timing.quartiles))
        speeds = {"images_per_second": median, "lower_quartile": low, "upper_quartile": high}
        ratio = 1 / timing.ratio(timings[OURS])
        records.append({"name": name, "batch_size": batch_size, "ratio": ratio, **speeds, "turns": len(timing.seconds)})
    return records


def main(options: Options) -> None:
    """Time, print, save."""
    if too_large := [size for size in options.batch_sizes if not 0 < size <= IMAGES]:
        raise SystemExit(f"--batch-sizes: {too_large[0]} is not between 1 and {IMAGES}")
    records = [record for size in options.batch_sizes for record in measure(size, options.seconds)]
    rows: list[Sequence[str]] = [
        (
            f"{r['name']}, batch {r['batch_size']}",
            f"{r['images_per_second']:,.0f}",
            f"{r['lower_quartile']:,.0f} to {r['upper_quartile']:,.0f}",
            f"{r['ratio']:.2f}",
        )
        for r in records
    ]
    facts = harness.environment() | harness.machine_rates()
    harness.show_facts(facts)
    columns = ("training step", "images/s", "quartiles", "speed / ours")
    harness.show_table("The MNIST CNN's training step", columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
