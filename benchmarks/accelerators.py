"""How many bytes does a norm move in the memory of a GPU and of TPUs? Compiled for them, without owning one.

    python -m benchmarks.accelerators --quick --targets v5e          # one shape, bfloat16: for a developer's loop
    python -m benchmarks.accelerators --targets h100 --cases residual --shapes 256x14x14x256 --detail
    python -m benchmarks.accelerators --json .bench/accelerators.json                           # everything

A layer is a convolution, the norm with what follows it, and a convolution, forward and backward, the convolutions' own
traffic included. A *pass* is as many bytes as x has; what stays on a TPU's chip moves none. Kernels are what is
launched; temporaries what the program needs beside its arguments and results. Loops whose body normally does not run
are counted apart. Needs the compilers: `make bench-accelerators` installs them (pip install 'jaxbn[accelerators]').
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import tyro

from benchmarks import harness
from benchmarks.compiled.layer import VARIANTS, VariantName, compile_layer
from benchmarks.compiled.targets import TARGETS, TargetName, compilers, place, without_devices
from benchmarks.compiled.traffic import Traffic, traffic
from benchmarks.norm_act import TITLES, NormName

SHAPES = ("256x56x56x64", "256x28x28x128", "256x14x14x256", "256x7x7x512")  # a ResNet's


@dataclass(frozen=True)
class Options:
    """The bytes that a norm moves on accelerators, counted in compiled programs."""

    targets: tuple[TargetName, ...] = tuple(TARGETS)
    cases: tuple[VariantName, ...] = ("norm", "residual", "relu", "max-pool")
    types: tuple[Literal["float32", "bfloat16"], ...] = ("bfloat16", "float32")
    shapes: tuple[str, ...] = SHAPES
    norms: tuple[NormName, ...] = ("flax", "flax-two-pass", "jaxbn", "jaxbn-fused")
    quick: bool = False
    """The first type and shape and the first two cases only, and not Flax's accurate variance."""
    detail: bool = False
    """Also print every kernel that touches a large array."""
    markdown: bool = False
    """Print the tables for pasting into the documentation."""
    json: Path | None = None
    """Where to save the figures."""


@dataclass(frozen=True)
class Measurement:
    """One program."""

    target: str
    case: str
    shape: str
    dtype: str
    norm: str
    bytes: float
    passes: float
    kernels: int
    bytes_in_loops: float
    temporary_bytes: int


def measure_layers(options: Options) -> Iterator[tuple[Measurement, Traffic]]:
    """Compiles every case."""
    for target, dtype, shape, case, norm in itertools.product(
        options.targets, options.types, options.shapes, options.cases, options.norms
    ):
        if norm == "jaxbn-fused" and case == "norm":
            continue  # there is nothing to fuse: the same program
        dims = tuple(map(int, shape.split("x")))
        compiled = compile_layer(place(target), norm, VARIANTS[case], dims, dtype)
        counted, memory = traffic(compiled.as_text() or ""), compiled.memory_analysis()
        size = jax.ShapeDtypeStruct(dims, dtype)
        yield (
            Measurement(
                target=TARGETS[target].title,
                case=VARIANTS[case].title,
                shape="×".join(map(str, dims)),
                dtype=dtype,
                norm=TITLES[norm],
                bytes=counted.bytes,
                passes=counted.bytes / (size.size * size.dtype.itemsize),
                kernels=len(counted.launched),
                bytes_in_loops=counted.bytes_in_loops,
                temporary_bytes=memory.temp_size_in_bytes,
            ),
            counted,
        )


def show_detail(measurement: Measurement, counted: Traffic) -> None:
    """Every kernel that moves at least a tenth of a pass."""
    print(f"\n{measurement.target}, {measurement.case}, {measurement.shape}, {measurement.dtype}: {measurement.norm}")
    whole = measurement.bytes / measurement.passes
    for kernel in counted.kernels:
        if kernel.bytes > whole / 10:
            reads, writes = (
                " ".join(f"{a.dtype}·{size / whole:.2f}" for a, size in arrays if size > whole / 20)
                for arrays in (kernel.reads, kernel.writes)
            )
            work = {o: kernel.inside.count(o) for o in ("convolution", "reduce", "compare", "select", "reduce-window")}
            some = " ".join(f"{name}×{count}" for name, count in work.items() if count)
            print(f"  {kernel.bytes / whole:5.2f}  {kernel.name:40s} {kernel.kind:38s} {reads} → {writes}  [{some}]")


def row(m: Measurement, measurements: Sequence[Measurement]) -> Sequence[str]:
    """A row of a table."""
    flax = [o for o in measurements if (o.case, o.shape, o.dtype, o.norm) == (m.case, m.shape, m.dtype, TITLES["flax"])]
    return (
        f"{m.case}, {m.shape}, {m.dtype}: {m.norm}",
        f"{m.passes:.2f}",
        f"{m.bytes / flax[0].bytes:.3f}" if flax else "–",
        str(m.kernels),
        f"{m.bytes / 2**30:.3f}",
        f"{m.bytes_in_loops / 2**30:.3f}",
        f"{m.temporary_bytes / 2**20:,.0f}",
    )


def main(options: Options) -> None:
    """Compiles, counts, prints, saves."""
    without_devices()
    if options.quick:
        norms = tuple(norm for norm in options.norms if norm != "flax-two-pass")
        options = replace(
            options, types=options.types[:1], shapes=options.shapes[:1], cases=options.cases[:2], norms=norms
        )
    measurements = []
    for measurement, counted in measure_layers(options):
        measurements.append(measurement)
        if options.detail:
            show_detail(measurement, counted)
    facts = harness.environment() | {name: compilers(name) for name in options.targets}
    harness.show_facts(facts)
    columns = ("", "passes over x", "of Flax's bytes", "kernels", "GiB", "GiB in loops", "MiB temporary")
    for target in dict.fromkeys(m.target for m in measurements):
        mine = [m for m in measurements if m.target == target]
        harness.show_table(target, columns, [row(m, mine) for m in mine], options.markdown)
    harness.save_json(options.json, options, facts, [asdict(m) for m in measurements])


if __name__ == "__main__":
    main(tyro.cli(Options))
