"""Every picture can be drawn from records in the form that the benchmarks save."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plots
from benchmarks.case import OURS
from benchmarks.drawings.bars import lead
from benchmarks.drawings.libraries import look
from benchmarks.plots import DRAWINGS, Options
from train.report import style

NAMES = ("jaxbn", "Flax", "PyTorch compiled, channels-last")


def records() -> dict[str, list[dict[str, Any]]]:
    """Some records of each benchmark."""
    steps = {"batch_size": 32, "images_per_second": 100.0, "ratio": 1.0}
    layers = itertools.product(NAMES, ("norm", "norm + relu"), ("8×4", "9×4"))
    starts = ("import jax", "import jaxbn", "second start, to the first step on digits")
    return {
        "exactness": [
            {"library": name, "ratio": ratio, "output": error, "way": False}
            for name in NAMES
            for ratio, error in ((0.0, 1e-6), (100.0, float("nan")))
        ],
        "layer": [
            {"library": name, "variant": variant, "shape": shape, "dtype": "float32", "vs_ours": 1.5}
            for name, variant, shape in layers
        ],
        "train_step": [{"name": name, **steps} for name in NAMES],
        "time_to_accuracy": [
            {"library": library, "epochs": 1, "accuracy": 0.99, "train_seconds": 10.0 + seed}
            for library in (OURS, "PyTorch")
            for seed in range(3)
        ],
        "memory": [{"name": name, "bytes": 2**20, "of_flax": 1.0} for name in NAMES],
        "startup": [{"name": name, "processor": 0.5} for name in starts],
        "accelerators": [
            {"norm": name, "target": target, "case": "norm", "shape": "8×4", "dtype": "float32", "passes": passes}
            for name in NAMES
            for target, passes in (("H100", 20.0), ("TPU v5e", 14.0), ("TPU v5e", None))
        ],
        "collectives": [{"name": n, "way": "jit", "devices": 2, "collectives": 2, "bytes": 256} for n in NAMES],
        "inference": [{"name": "agreement"}, *({"name": name, **steps} for name in ("with norms", "folded"))],
    }


def test_all_that_was_saved_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, of_it in records().items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"options": {}, "environment": {}, "records": of_it}))
    (tmp_path / "scaling.json").write_text(json.dumps({"options": {}, "environment": {}, "records": []}))
    plots.main(Options(tmp_path, tmp_path / "pictures"))
    written = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in written] == sorted(f"{name}.png" for name in DRAWINGS)
    assert sorted(capsys.readouterr().out.split()) == list(map(str, written))


def test_ours_has_the_same_colour_everywhere_and_no_other_has_it():
    assert look("jaxbn").colour == look("jaxbn, fused").colour == style.BLUE
    assert style.BLUE not in [look(name).colour for name in NAMES[1:]]
    assert look("PyTorch").colour == look("PyTorch compiled").colour


@pytest.mark.parametrize(
    ("ratio", "title"),
    [(0.5, "jaxbn is at least 2.00 times as fast as the others"), (2.0, "Flax is 2.00 times as fast as jaxbn")],
)
def test_a_title_says_who_is_ahead(ratio: float, title: str):
    assert lead([{"name": "jaxbn", "ratio": 1.0}, {"name": "Flax", "ratio": ratio}]) == title
