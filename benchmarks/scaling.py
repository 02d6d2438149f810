"""The communication of data-parallel training: the collectives of the compiled step, for 8 to 512 devices.

    python -m benchmarks.scaling [--devices 8 64 512] [--topologies v5p:8x8x8] [--json FILE] [--markdown]

The training program's own loop over the MNIST CNN is compiled ahead of time for as many CPU devices (which takes no
more than their names: nothing runs), and its collectives are counted in the optimised program; where libtpu is
installed, also for the chips of a TPU pod, by the TPU's own compiler. A model then says what they would take on
machines that are not here (benchmarks/interconnect.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from benchmarks import harness
from benchmarks.collectives import collectives
from benchmarks.interconnect import MACHINES, Machine
from train.config.sections import Config, ModelConfig, NormConfig
from train.network.build import build
from train.training.devices import AXIS, Devices, choose
from train.training.optimizer import optimizer
from train.training.step import Examples, init_state, train_steps

Scope = Literal["global", "device"]


@dataclass(frozen=True)
class Options:
    """Collectives of a training step, and what they would take."""

    devices: tuple[int, ...] = (8, 64, 512)
    examples: int = 64
    """Examples on each device."""
    topologies: tuple[str, ...] = ()
    """TPU pods, too, such as v5p:8x8x8: needs libtpu, and no TPU."""
    channels: tuple[int, ...] = (32, 64)
    hidden: int = 256
    compute_milliseconds: tuple[float, ...] = (1.0, 10.0)
    """Times of a step's computation on one device, to compare with."""
    markdown: bool = False
    """Print the tables for pasting into the documentation."""
    json: Path | None = None
    """Where to save the figures."""


def pod(topology: str) -> Devices:
    """The chips of a TPU pod, which need not be present."""
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    return Devices(Mesh(np.array(found), (AXIS,), axis_types=(AxisType.Auto,)))


def compiled(devices: Devices, options: Options, scope: Scope) -> str:
    """The optimised program of the training loop, as text."""
    platform = devices.mesh.devices.flat[0].platform if devices.mesh else jax.default_backend()
    batch_size = options.examples * devices.count
    ghost = options.examples if scope == "device" else None
    model_options = ModelConfig(channels=options.channels, hidden=(options.hidden,))
    config = Config(model=model_options, norm=NormConfig(norm_ghost_batch=ghost))
    model = build(config, (28, 28, 1), 10, platform, total_steps=1000)
    tx = optimizer(config.optimizer, 1000)
    examples = max(60_000, batch_size)
    inputs = _array(examples, 28, 28, 1, dtype=jnp.uint8)
    data: Any = Examples(inputs, _array(examples))  # pyright: ignore[reportArgumentType]  (shapes stand in for arrays)
    state = jax.eval_shape(lambda inputs: init_state(model, tx, inputs, seed=0), inputs)
    steps = partial(train_steps, model, tx, batch_size=batch_size, divide=devices.divide)
    program = devices.jit(steps, donate_argnums=0).lower(state, data, data.labels, (_array(), _array())).compile()
    text = program.as_text()
    assert text is not None
    return text


def _array(*shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def predictions(
    sizes: dict[int, Sequence[int]], machine: Machine, compute_milliseconds: Sequence[float]
) -> list[list[str]]:
    """A row for each number of devices: the time of a step's collectives, and the efficiency that they leave."""
    rows = []
    for count, of_step in sizes.items():
        seconds = machine.step(of_step, count)
        efficiencies = [milliseconds / (milliseconds + 1e3 * seconds) for milliseconds in compute_milliseconds]
        rows.append([f"{count}", f"{1e6 * seconds:,.0f} µs", *(f"{efficiency:.0%}" for efficiency in efficiencies)])
    return rows


def main(options: Options) -> None:
    """Compile, count, predict, print."""
    jax.config.update("jax_num_cpu_devices", max(options.devices))
    places = {f"{count} devices": choose(count) for count in options.devices}
    places |= {f"TPU {topology}": pod(topology) for topology in options.topologies}
    counted: dict[Scope, dict[int, Sequence[int]]] = {"global": {}, "device": {}}
    rows, records = [], []
    for scope, of_counts in counted.items():
        for name, devices in places.items():
            sizes = collectives(compiled(devices, options, scope), loops=1)
            of_counts.setdefault(devices.count, sizes)
            cells = (len(sizes), sum(sizes), max(sizes), sum(sizes) - max(sizes))
            records.append({"scope": scope, "place": name, "devices": devices.count, "bytes": list(sizes)})
            rows.append([f"--norm-scope {scope}, {name}", *(f"{cell:,}" for cell in cells)])
    facts = harness.environment()
    harness.show_facts(facts)
    columns = ("a step", "collectives", "bytes", "of the largest (the gradients)", "of the others")
    harness.show_table(f"Collectives, {options.examples} examples a device", columns, rows, options.markdown)
    columns = ("devices", "communication", *(f"efficiency at {each:g} ms" for each in options.compute_milliseconds))
    for machine in MACHINES:
        for scope, sizes in counted.items():
            known = {count: of_step for count, of_step in sizes.items() if count in machine.shapes}
            title = f"Predicted, not measured: {machine.name}, --norm-scope {scope}"
            harness.show_table(
                title, columns, predictions(known, machine, options.compute_milliseconds), options.markdown
            )
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
