"""How many bytes does a norm move in the memory of a GPU and of TPUs? Compiled for them, without owning one.

    python -m benchmarks.accelerators --quick --targets v5e      # five programs: half a minute, for a developer's loop
    python -m benchmarks.accelerators --targets h100 --cases residual --shapes 256x14x14x256 --detail
    python -m benchmarks.accelerators --json .bench/accelerators.json               # everything: hours on two cores

An interrupted run goes on: a program that the JSON file already has, to the letter, is not compiled again.

A layer is a convolution, the norm with what follows it, and a convolution, forward and backward, the convolutions' own
traffic included. A *pass* is as many bytes as x has. Only main memory counts: arrays that a TPU keeps on the chip are
excluded, its padding of arrays is included. Kernels are the launched operations; temporaries are the memory beyond
arguments and results. Loops and branches, whose body may not run, are counted separately. A ResNet-50's step has 64
images of 224×224 in bfloat16, that of the MNIST CNN 128 images in float32. The program needs the compilers, which
`make bench-accelerators` installs in a virtual environment of its own: pip install 'jaxbn[accelerators]'.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import tyro

from benchmarks import harness
from benchmarks.compiled.layer import VARIANTS, VariantName, lower_layer
from benchmarks.compiled.step import Remat, mnist_cnn, resnet50, resnet50_inference
from benchmarks.compiled.targets import TARGETS, TargetName, compilers, place, without_devices
from benchmarks.compiled.traffic import Traffic, traffic
from benchmarks.norm_act import TITLES, NormName

WholeName = Literal["resnet-50", "mnist-cnn", "inference", "folded-inference"]
WHOLE: dict[str, str] = {
    "resnet-50": "ResNet-50 step",
    "mnist-cnn": "MNIST CNN step",
    "inference": "ResNet-50 inference",
    "folded-inference": "ResNet-50 inference, folded",
}
IMAGES, SIZE = 64, 224  # of a ResNet-50's step
MNIST_IMAGES = 128


@dataclass(frozen=True)
class Options:
    """The bytes that a norm moves on accelerators, counted in compiled programs."""

    targets: tuple[TargetName, ...] = tuple(TARGETS)
    cases: tuple[VariantName | WholeName, ...] = (
        *("norm", "residual", "relu", "max-pool"),
        *("resnet-50", "mnist-cnn", "inference", "folded-inference"),
    )
    types: tuple[Literal["bfloat16", "float32"], ...] = ("bfloat16", "float32")
    """Of the layers."""
    shapes: tuple[str, ...] = ("256x56x56x64", "256x28x28x128", "256x14x14x256", "256x7x7x512")
    """Of the layers' x; these are a ResNet's."""
    norms: tuple[NormName, ...] = ("flax", "flax-two-pass", "jaxbn", "jaxbn-fused")
    remat: tuple[Remat, ...] = ("none", "blocks")
    """The parts of a ResNet-50 that are computed again for its backward pass."""
    quick: bool = False
    """The first type and shape and the first two cases only, and not Flax's accurate variance."""
    detail: bool = False
    """Also print every kernel of a layer that touches a large array."""
    markdown: bool = False
    """Print the tables for pasting into the documentation."""
    json: Path | None = None
    """Where to save the figures."""


class Case(NamedTuple):
    """One program."""

    target: TargetName
    name: VariantName | WholeName
    shape: tuple[int, ...]  # of x, or of the images
    dtype: str
    remat: Remat
    norm: NormName

    @property
    def is_layer(self) -> bool:
        """True for a layer, False for a whole program."""
        return self.name in VARIANTS

    def lower(self) -> jax.stages.Lowered:
        """Trace and lower the program for its target, which need not be present."""
        where = place(self.target)
        if self.name == "resnet-50":
            return resnet50(where, self.norm, self.remat, self.shape[0], self.shape[1], self.dtype)
        if self.name in ("inference", "folded-inference"):
            folded = self.name == "folded-inference"
            return resnet50_inference(where, self.norm, folded, self.shape[0], self.shape[1], self.dtype)
        if self.name == "mnist-cnn":
            return mnist_cnn(where, self.norm, self.shape[0])
        return lower_layer(where, self.norm, VARIANTS[self.name], self.shape, self.dtype)


@dataclass(frozen=True)
class Measurement:
    """The counts of one program."""

    target: str
    case: str
    shape: str
    dtype: str
    remat: str
    norm: str
    bytes: float
    passes: float | None  # over x; None for a step
    floor: int | None
    kernels: int
    bytes_in_loops: float
    temporary_bytes: int
    digest: str  # of the program as it is handed to the compiler

    @property
    def program(self) -> tuple[str, ...]:
        """The program without its norm; two norms are compared if this is equal."""
        return self.target, self.case, self.shape, self.dtype, self.remat


def cases(options: Options) -> Iterator[Case]:
    """All programs, those of one comparison after each other."""
    for target, name in itertools.product(options.targets, options.cases):
        shapes: Sequence[tuple[int, ...]] = [harness.parse_shape(shape) for shape in options.shapes]
        dtypes: Sequence[str] = options.types
        remats: Sequence[Remat] = ("none",)
        if name == "resnet-50":
            shapes, dtypes, remats = [(IMAGES, SIZE, SIZE, 3)], ("bfloat16",), options.remat
        elif name in ("inference", "folded-inference"):
            shapes, dtypes = [(IMAGES, SIZE, SIZE, 3)], ("bfloat16",)
        elif name == "mnist-cnn":
            shapes, dtypes = [(MNIST_IMAGES, 28, 28, 1)], ("float32",)
        for dtype, shape, remat, norm in itertools.product(dtypes, shapes, remats, options.norms):
            if not (norm == "jaxbn-fused" and name == "norm"):  # nothing to fuse: the same program
                yield Case(target, name, shape, dtype, remat, norm)


def measure(case: Case, lowered: jax.stages.Lowered, digest: str) -> tuple[Measurement, Traffic]:
    """Compile and count."""
    compiled = lowered.compile()
    memory: Any = compiled.memory_analysis()
    counted = traffic(compiled.as_text() or "")
    x_bytes = prod(case.shape) * jnp.dtype(case.dtype).itemsize
    on_gpu = TARGETS[case.target].platform == "cuda"  # a TPU's convolutions absorb what is next to them
    measurement = Measurement(
        target=TARGETS[case.target].title,
        case=VARIANTS[case.name].title if case.name in VARIANTS else WHOLE[case.name],
        shape="×".join(map(str, case.shape)),
        dtype=case.dtype,
        remat=case.remat,
        norm=TITLES[case.norm],
        bytes=counted.bytes,
        passes=counted.bytes / x_bytes if case.is_layer else None,
        floor=VARIANTS[case.name].floor if on_gpu and case.name in VARIANTS else None,
        kernels=len(counted.launched),
        bytes_in_loops=counted.bytes_in_loops,
        temporary_bytes=memory.temp_size_in_bytes,
        digest=digest,
    )
    return measurement, counted


def digest_of(target: TargetName, lowered: jax.stages.Lowered) -> str:
    """The digest of all that the counts depend on: the target, its compilers' versions and flags, and the program."""
    parts = (target, str(compilers(target)), os.environ.get("XLA_FLAGS", ""), lowered.as_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def known_measurements(path: Path | None) -> dict[str, Measurement]:
    """The measurements in the file of an earlier run, by digest; empty where there is none."""
    records = json.loads(path.read_text())["records"] if path and path.exists() else []
    return {record["digest"]: Measurement(**record) for record in records}


def show_detail(measurement: Measurement, counted: Traffic) -> None:
    """Every kernel that moves at least a tenth of a pass."""
    print(f"\n{', '.join(measurement.program)}: {measurement.norm}")
    whole = measurement.bytes / (measurement.passes or 1)
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
    flax = [other for other in measurements if (other.program, other.norm) == (m.program, TITLES["flax"])]
    blocks = {"none": "", "blocks": ", blocks recomputed"}.get(m.remat, f", {m.remat}")
    return (
        f"{m.case}, {m.shape}, {m.dtype}{blocks}: {m.norm}",
        "–" if m.passes is None else f"{m.passes:.2f}",
        f"{m.bytes / flax[0].bytes:.3f}" if flax else "–",
        f"{m.bytes / 2**30:.3f}",
        f"{m.bytes_in_loops / 2**30:.3f}",
        f"{m.kernels:,}",
        f"{m.temporary_bytes / 2**20:,.0f}",
    )


def main(options: Options) -> None:
    """Compile, count, print, save."""
    without_devices()
    missing: list[TargetName] = [name for name in options.targets if not compilers(name)]
    if missing:
        needed = ", ".join(dict.fromkeys(package for name in missing for package in TARGETS[name].compilers))
        raise SystemExit(f"no compiler for {', '.join(missing)}: pip install 'jaxbn[accelerators]' ({needed})")
    if options.quick:
        norms = tuple(norm for norm in options.norms if norm != "flax-two-pass")
        types, shapes, first = options.types[:1], options.shapes[:1], options.cases[:2]
        options = replace(options, types=types, shapes=shapes, cases=first, norms=norms)
    versions = {name: version for target in TARGETS for name, version in compilers(target).items()}
    facts = harness.environment() | {"compilers": ", ".join(f"{name} {each}" for name, each in versions.items())}
    harness.show_facts(facts)
    measurements, known = [], {} if options.detail else known_measurements(options.json)
    for case in cases(options):
        lowered = case.lower()
        digest = digest_of(case.target, lowered)
        if (measurement := known.get(digest)) is None:
            measurement, counted = measure(case, lowered, digest)
            if options.detail and case.is_layer:
                show_detail(measurement, counted)
        measurements.append(measurement)
        known = {d: m for d, m in known.items() if (m.program, m.norm) != (measurement.program, measurement.norm)}
        harness.save_json(options.json, options, facts, [asdict(m) for m in (*measurements, *known.values())])
    columns = ("", "passes over x", "of Flax's bytes", "GiB", "GiB in loops", "kernels", "MiB temporary")
    for target in dict.fromkeys(m.target for m in measurements):
        rows = [row(m, measurements) for m in measurements if m.target == target]
        harness.show_table(target, columns, rows, options.markdown)


if __name__ == "__main__":
    main(tyro.cli(Options))
