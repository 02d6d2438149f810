import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import accelerators
from benchmarks.accelerators import Options, cases
from benchmarks.compiled.goals import floors, layers, steps, temporaries
from benchmarks.compiled.program import Array, parse
from benchmarks.compiled.targets import compilers
from benchmarks.compiled.traffic import traffic

X = "f32[8,4]{1,0}"  # 128 bytes
PROGRAM = f"""HloModule jit_run, entry_computation_layout={{({X})->{X}}}

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[]{{:T(128)}} parameter(0)
  %b = f32[]{{:T(128)}} parameter(1)
  ROOT %sum = f32[]{{:T(128)}} add(%a, %b)
}}

%fused (p.0: {X}, p.1: {X}) -> (f32[4]{{0}}, {X}) {{
  %p.0 = {X} parameter(0)
  %p.1 = {X} parameter(1)
  %rows = f32[2,4]{{1,0}} slice(%p.1), slice={{[0:2], [0:4]}}
  %zero = f32[] constant(0)
  %reduced = f32[4]{{0}} reduce(%p.0, %zero), dimensions={{0}}, to_apply=%add
  ROOT %both = (f32[4]{{0}}, {X}) tuple(%reduced, %p.0)
}}

%updated (p: {X}, rows.1: f32[2,4]) -> {X} {{
  %p = {X} parameter(0)
  %rows.1 = f32[2,4]{{1,0}} parameter(1)
  %start = s32[] constant(0)
  ROOT %set = {X} dynamic-update-slice(%p, %rows.1, %start, %start)
}}

%body (state: (s32[], {X})) -> (s32[], {X}) {{
  %state = (s32[], {X}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %carried = {X} get-tuple-element(%state), index=1
  %doubled = {X} add(%carried, %carried)
  ROOT %next = (s32[], {X}) tuple(%i, %doubled)
}}

%condition (state.1: (s32[], {X})) -> pred[] {{
  %state.1 = (s32[], {X}) parameter(0)
  ROOT %no = pred[] constant(false)
}}

ENTRY %main (x: {X}) -> {X} {{
  %x = {X} parameter(0)
  %first = (f32[4]{{0}}, {X}) fusion(%x, %x), kind=kInput, calls=%fused
  %copied = {X} get-tuple-element(%first), index=1
  %near = f32[8,4]{{1,0:T(8,128)S(1)}} copy(%copied)
  %far = {X} negate(%near)
  %two = f32[2,4]{{1,0}} constant({{...}})
  %patched = {X} fusion(%far, %two), kind=kLoop, calls=%updated
  %zero.1 = s32[] constant(0)
  %init = (s32[], {X}) tuple(%zero.1, %patched)
  %looped = (s32[], {X}) while(%init), condition=%condition, body=%body
  ROOT %out = {X} get-tuple-element(%looped), index=1
}}
"""


def test_the_kernels_of_a_program():
    counted = traffic(PROGRAM)
    moved = {kernel.name: kernel.bytes for kernel in counted.kernels}
    assert moved == {
        "first": 128 + 2 * 16 + 16 + 128,  # all of x once, two rows of it; a channel vector and x
        "near": 128,  # read, and written on the chip
        "far": 128,
        "patched": 32 + 32,  # two rows are read and written in place
        "while/doubled": 3 * 128,
    }
    assert [kernel.name for kernel in counted.launched] == ["first", "near", "far", "patched"]
    assert counted.bytes_in_loops == 3 * 128
    assert counted.kernels[0].inside.count("reduce") == 1


def test_the_operations_of_a_program():
    program = parse(PROGRAM)
    assert program.entry == "main"
    assert program.computations["main"]["looped"].called == ("body",)
    assert [array.dims for array in program.computations["main"]["first"].results] == [(4,), (8, 4)]


def test_a_tpu_pads_to_tiles():
    assert Array("bf16", (256, 56, 56, 64), "0,3,2,1:T(8,128)(2,1)").bytes == 2 * 256 * 56 * 56 * 64
    assert Array("bf16", (64, 56, 56, 64), "0,3,2,1:T(8,128)(2,1)").bytes == 2 * 128 * 56 * 56 * 64
    assert Array("f32", (3,), "0:T(256)").bytes == 4 * 256
    assert Array("f32", (), ":T(128)").bytes == 4
    assert Array("f32", (7, 3), "1,0").bytes == 4 * 21


def test_only_what_differs_is_compiled():
    names = [
        (c.name, c.norm) for c in cases(Options(targets=("h100",), cases=("norm", "residual"), types=("float32",)))
    ]
    assert len(names) == 4 * (3 + 4)
    assert ("norm", "jaxbn-fused") not in names
    (step, *_), *_ = [list(cases(Options(targets=("v5e",), cases=("resnet-50",))))]
    assert (step.shape, step.dtype, step.is_layer) == ((64, 224, 224, 3), "bfloat16", False)


def record(norm: str, size: float, **more: object) -> dict[str, object]:
    same = {"target": "H100", "case": "norm", "shape": "8×4", "dtype": "float32", "remat": "none"}
    return {**same, "norm": norm, "bytes": size, "passes": size, "floor": 20, "temporary_bytes": size, **more}


def test_the_goals():
    records = [record("Flax", 21.0), record("jaxbn", 20.1), record("jaxbn, fused", 20.4)]
    assert layers(records, "H100", ("jaxbn", "jaxbn, fused"), "Flax", 1) == (
        "2 of 2; worst 0.971, jaxbn, fused, norm, 8×4, float32",
        "met",
    )
    assert layers(records, "H100", ("jaxbn, fused",), "jaxbn", 1) == (
        "0 of 1; worst 1.015, jaxbn, fused, norm, 8×4, float32",
        "not met",
    )
    assert layers(records, "TPU v5e", ("jaxbn",), "Flax", 1) is None
    assert floors(records, 0.3) == ("1 of 2; worst 0.40, jaxbn, fused, norm, 8×4, float32", "not met")
    whole = {"case": "ResNet-50 step", "passes": None, "floor": None}
    records = [
        record("Flax", 10.0, **whole),
        record("jaxbn", 10.0, **whole),
        record("Flax", 5.0, remat="blocks", **whole),
    ]
    records.append(record("jaxbn", 4.0, remat="blocks", **whole))
    assert steps(records, "H100", "ResNet-50 step", 1.005) == (
        "2 of 2; worst 1.000, jaxbn, ResNet-50 step, 8×4, float32",
        "met",
    )
    assert temporaries(records, "H100", 0.4) == ("0.40 (jaxbn, blocks)", "met")
    assert temporaries(records[1:2], "H100", 0.4) is None


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiled = []

    def lower(case: accelerators.Case) -> SimpleNamespace:
        return SimpleNamespace(as_text=lambda: f"{case} {program}")

    def measure(case: accelerators.Case, _: object, digest: str) -> tuple[accelerators.Measurement, None]:
        if len(compiled) == room:
            raise KeyboardInterrupt
        compiled.append(case.norm)
        counts = {"bytes": 1.0, "passes": 1.0, "floor": 20, "kernels": 1, "bytes_in_loops": 0.0, "temporary_bytes": 1}
        about = {"target": case.target, "case": case.name, "shape": "8×4", "dtype": case.dtype, "remat": case.remat}
        return accelerators.Measurement(**about, norm=case.norm, **counts, digest=digest), None

    for name, replacement in (("measure", measure), ("compilers", lambda _: {"xla": "1"})):
        monkeypatch.setattr(accelerators, name, replacement)
    monkeypatch.setattr(accelerators, "without_devices", lambda: None)
    monkeypatch.setattr(accelerators.Case, "lower", lower)
    path = tmp_path / "counts.json"
    options = Options(targets=("h100",), cases=("relu",), types=("float32",), shapes=("8x4",), json=path)
    program, room = "before", 2
    with pytest.raises(KeyboardInterrupt):
        accelerators.main(options)
    room = 100
    accelerators.main(options)
    assert compiled == ["flax", "flax-two-pass", "jaxbn", "jaxbn-fused"]
    program = "after"  # the library has changed: every count is taken anew, and stands alone
    accelerators.main(options)
    assert compiled == [*options.norms, *options.norms]
    assert [each["norm"] for each in json.loads(path.read_text())["records"]] == list(options.norms)


@pytest.mark.parametrize(
    ("target", "shape", "flax", "apart", "fused"),
    [
        ("h100", "256x56x56x64", 24.0, 23.1, 23.1),
        ("h100", "256x14x14x256", 24.15, 25.2, 23.2),
        ("v5e", "256x56x56x64", 18.0, 18.1, 18.1),
        ("v6e", "256x56x56x64", 19.0, 19.1, 19.1),
    ],
)
def test_no_change_costs_a_pass(target, shape, flax, apart, fused, tmp_path: Path):
    """A norm with residual and relu, in bfloat16, makes no more passes than before."""
    if not compilers(target):
        pytest.skip("make bench-accelerators installs the compilers in .venv-accelerators: run the test there")
    path = tmp_path / "counts.json"
    options = ["--targets", target, "--cases", "residual", "--shapes", shape, "--types", "bfloat16"]
    norms = ["--norms", "flax", "jaxbn", "jaxbn-fused"]
    command = [sys.executable, "-m", "benchmarks.accelerators", *options, *norms, "--json", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    passes = {each["norm"]: each["passes"] for each in json.loads(path.read_text())["records"]}
    assert passes["Flax"] == pytest.approx(flax, abs=0.05)  # else the compilers are others
    assert passes["jaxbn"] <= apart
    assert passes["jaxbn, fused"] <= fused
