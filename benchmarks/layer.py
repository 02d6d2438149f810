"""How fast is one layer, forward and backward, in each library, and how much memory does it keep between the two?

    python -m benchmarks.layer [--quick] [--markdown] [--seconds S] [--json FILE]
    python -m benchmarks.layer --types bfloat16 --shapes 128x28x28x32 4096x512

Training mode: the result, the updated running statistics and the gradients of input, scale, bias (and residual).
Variants: the norm alone; a relu after it; a residual added and then a relu. Columns:

* ms: the median (lower quartile, upper quartile);
* vs jaxbn, vs fastest: how many times as long, compared turn by turn (see `harness.py`);
* vs floor: the same against the time that memory alone would need, at the bandwidth of a plain copy of the same array
  in the same turn, for eight passes over x: read x twice, write y; read x and its cotangent twice, write dx. A residual
  adds two passes (read it, write its cotangent) and two passes over one byte an entry, to write the relu's sign, which
  does not follow from x, and read it. What an array takes from the system for its results is not in the floor;
* kept: memory held between forward and backward pass, in sizes of x: JAX's are the arrays in the function that
  `jax.vjp` returns, PyTorch's what autograd saves. Of JAX's, 1.00 (float32 and bfloat16 alike) is the zeros that the
  rule of `jax.nn.relu` makes, where it is used: a compiler that sees both passes drops those. PyTorch's relu keeps its
  own result, which the next layer would keep anyway.

Takes some ten minutes, most of it compiling; with --quick (two shapes, float32) a minute or two.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import harness, peers
from benchmarks.case import OURS, Case, Peer

SHAPES = (
    *("128x28x28x32", "32x26x26x32", "128x26x26x32", "256x32x32x64"),
    *("128x11x11x64", "4096x512", "128x14x14x256", "32x7x7x512"),
)
QUICK_SHAPES = ("32x26x26x32", "4096x512")
VARIANTS = ("norm", "norm + relu", "norm + residual + relu")


@dataclass(frozen=True)
class Options:
    """How fast is one layer in each library, and what does it keep?"""

    quick: bool = False
    """Two shapes, float32 only."""
    types: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """Of x."""
    shapes: tuple[str, ...] = SHAPES
    """Of x."""
    seconds: float = 2.0
    """How long to measure each shape, type and variant, after compilation; half of it with --quick."""
    markdown: bool = False
    """Print the summary only, as tables to paste into the documentation."""
    json: Path | None = None
    """Also write every number to this file."""


@dataclass(frozen=True)
class Measurement:
    """The measurement of one library on one shape, type and variant."""

    shape: str
    dtype: str
    variant: str
    library: str
    ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    vs_ours: float
    vs_fastest: float
    vs_floor: float
    kept_bytes: int
    kept: float  # in sizes of x
    turns: int


def make_case(shape: tuple[int, ...], dtype: Any, variant: str) -> Case:
    """Normal entries; every channel with a scale and a bias of its own."""
    random = np.random.default_rng(0)
    x, cotangent, residual = (random.standard_normal(shape, np.float32).astype(dtype) for _ in range(3))
    scale, bias = random.uniform(0.5, 1.5, (2, shape[-1])).astype(np.float32)
    return Case(x, scale, bias, cotangent, residual if "residual" in variant else None, "relu" in variant)


def floor_passes(case: Case) -> float:
    """The least number of times that the bytes of `x` must be moved."""
    return 8 if case.residual is None else 10 + 2 / case.x.itemsize


def measure(
    shape: tuple[int, ...], dtype: Any, variant: str, libraries: Sequence[Peer], seconds: float
) -> list[Measurement]:
    """Every library on one shape, type and variant, side by side with a copy."""
    case = make_case(shape, dtype, variant)
    if case.x.ndim == 2:  # has no memory formats
        libraries = [peer for peer in libraries if not peer.name.endswith("channels-last")]
    copy = harness.Copy(jnp.asarray(case.x))
    timings = harness.time_side_by_side({"copy": copy} | {peer.name: peer.step(case) for peer in libraries}, seconds)
    fastest = min((timings[peer.name] for peer in libraries), key=lambda timing: timing.median)
    measurements = []
    for peer in libraries:
        timing, kept = timings[peer.name], peer.kept_bytes(case)
        lower, median, upper = (1e3 * quartile for quartile in timing.quartiles)
        measurements.append(
            Measurement(
                shape="×".join(map(str, shape)),
                dtype=jnp.dtype(dtype).name,
                variant=variant,
                library=peer.name,
                ms=median,
                lower_quartile_ms=lower,
                upper_quartile_ms=upper,
                vs_ours=timing.ratio(timings[OURS]),
                vs_fastest=timing.ratio(fastest),
                vs_floor=timing.ratio(timings["copy"]) / (floor_passes(case) / 2),  # a copy is two passes
                kept_bytes=kept,
                kept=kept / case.x.nbytes,
                turns=len(timing.seconds),
            )
        )
    return measurements


def show_details(measurements: Sequence[Measurement]) -> None:
    """One table for one shape, type and variant."""
    first = measurements[0]
    rows = [
        [
            m.library,
            f"{m.ms:.3g} ({m.lower_quartile_ms:.3g}, {m.upper_quartile_ms:.3g})",
            *(f"{number:.2f}" for number in (m.vs_ours, m.vs_fastest, m.vs_floor, m.kept)),
        ]
        for m in measurements
    ]
    columns = ["", "ms", f"vs {OURS}", "vs fastest", "vs floor", "kept"]
    harness.show_table(f"{first.variant}, {first.dtype}, {first.shape}, {first.turns} turns", columns, rows)


def show_summary(measurements: Sequence[Measurement], names: Sequence[str], markdown: bool) -> None:
    """For each type and variant, times over shapes; then what is kept."""
    shown = {(m.dtype, m.variant, m.shape, m.library): m for m in measurements}
    groups = list(dict.fromkeys((m.dtype, m.variant) for m in measurements))
    shapes = list(dict.fromkeys(m.shape for m in measurements))
    others = [name for name in names if name != OURS]

    def cell(group: tuple[str, str], shape: str, name: str, field: str) -> str:
        m = shown.get((*group, shape, name))
        return f"{getattr(m, field):.2f}" if m is not None else "–"

    for group in groups:
        rows = []
        for shape in shapes:
            ours = (f"{shown[*group, shape, OURS].ms:.3g}", cell(group, shape, OURS, "vs_floor"))
            rows.append([shape, *ours, *(cell(group, shape, name, "vs_ours") for name in others)])
        columns = ["", f"{OURS}, ms", "vs floor", *others]
        title = f"{group[1]}, {group[0]}: time of the others, as a multiple of {OURS}'s"
        harness.show_table(title, columns, rows, markdown)
    rows = [
        [f"{variant}, {dtype}", *(cell((dtype, variant), shapes[0], n, "kept") for n in names)]
        for dtype, variant in groups
    ]
    harness.show_table("kept for the backward pass, in sizes of x", ["", *names], rows, markdown)


def main(options: Options) -> None:
    """Measure and print."""
    libraries = peers.available()
    facts = harness.environment() | harness.machine_rates()
    harness.show_facts(facts)
    shapes = QUICK_SHAPES if options.quick else options.shapes
    types = ("float32",) if options.quick else options.types
    measurements: list[Measurement] = []
    for dtype, variant, shape in itertools.product(types, VARIANTS, map(harness.parse_shape, shapes)):
        seconds = options.seconds / (2 if options.quick else 1)
        measured = measure(shape, jnp.dtype(dtype), variant, libraries, seconds)
        if not options.markdown:
            show_details(measured)
        measurements += measured
    show_summary(measurements, [peer.name for peer in libraries], options.markdown)
    harness.save_json(options.json, options, facts, [vars(m) for m in measurements])


if __name__ == "__main__":
    main(tyro.cli(Options))
