import json
from pathlib import Path

import jax.numpy as jnp
import pytest

from benchmarks import harness, layer, peers
from benchmarks.harness import Timing
from benchmarks.layer import VARIANTS, Measurement, Options, floor_passes, make_case, measure

OURS_AND_FLAX = peers.PEERS[:2]


@pytest.mark.parametrize(
    ("variant", "float32", "bfloat16"),
    [("norm", 8, 8), ("norm + relu", 8, 8), ("norm + residual + relu", 10.5, 11)],
)
def test_passes_of_the_floor(variant: str, float32: float, bfloat16: float):
    assert floor_passes(make_case((4, 2), jnp.float32, variant)) == float32
    assert floor_passes(make_case((4, 2), jnp.bfloat16, variant)) == bfloat16


def test_ratios(monkeypatch: pytest.MonkeyPatch):
    timings = {"copy": Timing((0.5, 0.5)), "jaxbn": Timing((3.0, 3.0)), "Flax": Timing((6.0, 6.0))}
    monkeypatch.setattr(harness, "time_side_by_side", lambda functions, seconds: timings)
    ours, flax = measure((4, 2), jnp.float32, "norm", [peer for _, peer in OURS_AND_FLAX], seconds=0)
    assert (ours.ms, ours.vs_ours, ours.vs_fastest, ours.vs_floor, ours.kept) == (3000, 1, 1, 1.5, 1)
    assert (flax.ms, flax.vs_ours, flax.vs_fastest, flax.vs_floor, flax.kept) == (6000, 2, 2, 3, 2)


def test_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(peers, "PEERS", OURS_AND_FLAX)
    monkeypatch.setattr(layer, "QUICK_SHAPES", ("16x4",))
    monkeypatch.setattr(harness, "machine_rates", lambda: {"copy, GB/s": 1.0})
    path = tmp_path / "layer.json"
    layer.main(Options(quick=True, seconds=0, json=path))
    records = json.loads(path.read_text())["records"]
    assert [(r["variant"], r["library"]) for r in records] == [(v, n) for v in VARIANTS for n in ("jaxbn", "Flax")]
    assert all(r["shape"] == "16×4" and r["ms"] > 0 and r["turns"] == 5 for r in records)
    printed = capsys.readouterr().out
    assert printed.count("vs fastest") == 3
    assert "kept for the backward pass" in printed


def test_the_summary(capsys: pytest.CaptureFixture[str]):
    common = {"dtype": "float32", "variant": "norm", "lower_quartile_ms": 0.0, "upper_quartile_ms": 0.0, "turns": 5}
    numbers = {"vs_fastest": 1.0, "kept_bytes": 0}
    measurements = [
        Measurement(shape=shape, library=name, ms=ms, vs_ours=vs, vs_floor=1.25, kept=kept, **common, **numbers)
        for shape, name, ms, vs, kept in [
            ("8×4", "jaxbn", 2.0, 1.0, 1.0),
            ("8×4", "Flax", 3.0, 1.5, 2.0),
            ("9×4", "jaxbn", 4.0, 1.0, 1.0),
        ]
    ]
    layer.show_summary(measurements, ["jaxbn", "Flax"], markdown=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("| 8×4")] == ["| 8×4 | 2 | 1.25 | 1.50 |"]
    assert [line for line in lines if line.startswith("| 9×4")] == ["| 9×4 | 4 | 1.25 | – |"]
    assert [line for line in lines if line.startswith("| norm")] == ["| norm, float32 | 1.00 | 2.00 |"]
