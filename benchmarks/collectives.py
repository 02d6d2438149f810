"""The communication of one batch norm: the collectives of its compiled program, and their bytes.

    python -m benchmarks.collectives [--channels 64] [--json FILE] [--markdown]

Forward and backward of one training step of the norm alone, the gradients of scale and bias summed over the devices
as data-parallel training does. Counted in the optimised program for CPU devices: nothing is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxbn
from benchmarks import harness
from benchmarks.compiled.program import parse

P = PartitionSpec
COLLECTIVES = {"all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"}
Norm = Callable[[jaxbn.BatchNormParams, jax.Array], tuple[jax.Array, object]]  # (params, x) -> (y, new statistics)


@dataclass(frozen=True)
class Options:
    """Collectives of one batch norm, and their bytes."""

    channels: int = 64
    devices: tuple[int, ...] = (2, 4, 8)
    markdown: bool = False
    """Print the table for pasting into the documentation."""
    json: Path | None = None
    """Where to save the figures."""


def ours(channels: int, axis_name: str | None) -> Norm:
    """The norm of jaxbn."""
    _, state = jaxbn.init(channels)
    return lambda params, x: jaxbn.batch_norm(params, state, x, train=True, axis_name=axis_name)


def flax(channels: int, axis_name: str | None, use_fast_variance: bool) -> Norm:
    """Flax's norm, with the variance as E[x²] − E[x]² (its default) or in two passes."""
    module = nn.BatchNorm(use_running_average=False, axis_name=axis_name, use_fast_variance=use_fast_variance)
    statistics = {"mean": jnp.zeros(channels), "var": jnp.ones(channels)}

    def norm(params: jaxbn.BatchNormParams, x: jax.Array) -> tuple[jax.Array, object]:
        variables = {"params": params._asdict(), "batch_stats": statistics}
        return module.apply(variables, x, mutable=["batch_stats"])  # pyright: ignore[reportReturnType]

    return norm


def step(norm: Norm, reduce_gradients: bool) -> Callable[..., object]:
    """The forward pass, and the backward pass for a cotangent."""

    def run(params: jaxbn.BatchNormParams, x: jax.Array, g: jax.Array) -> object:
        y, pull, statistics = jax.vjp(norm, params, x, has_aux=True)
        of_params, of_x = pull(g)
        if reduce_gradients:
            of_params = jax.lax.psum(of_params, "data")
        return y, of_x, (of_params, statistics)

    return run


def compiled(norm: Callable[[str | None], Norm], mesh: Mesh, way: str, channels: int) -> str:
    """The optimised program, as text."""
    share = NamedSharding(mesh, P("data"))
    x = jax.device_put(jnp.ones((4 * mesh.size, 8, 8, channels)), share)
    params, _ = jaxbn.init(channels)
    if way == "jit, sharded arrays":
        program = jax.jit(step(norm(None), reduce_gradients=False))
    else:
        checked = way == "shard_map"
        mapped = jax.shard_map(
            step(norm("data"), reduce_gradients=not checked),
            mesh=mesh,
            in_specs=(P(), P("data"), P("data")),
            out_specs=(P("data"), P("data"), P()),
            check_vma=checked,
        )
        program = jax.jit(mapped)
    text = program.lower(params, x, x).compile().as_text()
    assert text is not None
    return text


def collectives(text: str, loops: int = 0) -> list[int]:
    """The bytes of each collective's result.

    Those in loops are left out, since one that looks for a better guess seldom runs; but for the first `loops`, one
    within another, such as that over steps.
    """
    return [
        sum(array.elements * array.itemsize for array in operation.results)
        for operation in parse(text).always_run(loops)
        if operation.opcode.removesuffix("-start") in COLLECTIVES
    ]


def main(options: Options) -> None:
    """Compile, count, print."""
    jax.config.update("jax_num_cpu_devices", max(options.devices))
    norms = {
        "jaxbn": lambda name: ours(options.channels, name),
        "Flax": lambda name: flax(options.channels, name, use_fast_variance=True),
        "Flax two-pass": lambda name: flax(options.channels, name, use_fast_variance=False),
    }
    rows, records = [], []
    for way in ("shard_map", "shard_map, check_vma=False", "jit, sharded arrays"):
        for name, norm in norms.items():
            row = [f"{way}: {name}"]
            for count in options.devices:
                mesh = Mesh(np.array(jax.devices()[:count]), ("data",), axis_types=(AxisType.Auto,))
                sizes = collectives(compiled(norm, mesh, way, options.channels))
                row.append(f"{len(sizes)} of {sum(sizes):,} bytes")
                figures = {"devices": count, "collectives": len(sizes), "bytes": sum(sizes)}
                records.append({"way": way, "name": name, **figures})
            rows.append(row)
    facts = harness.environment()
    harness.show_facts(facts)
    columns = ("forward + backward", *(f"{count} devices" for count in options.devices))
    harness.show_table(f"Collectives of a norm of {options.channels} channels", columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
