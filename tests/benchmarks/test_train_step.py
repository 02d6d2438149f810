"""The training steps of the libraries, on 16 images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness, train_step
from benchmarks.harness import Timing
from benchmarks.installed import installed
from benchmarks.steps import data
from benchmarks.train_step import CONTENDERS, Contender, Options
from train.training.step import Metrics

# torch.compile uses what PyTorch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_library_learns_the_images_by_heart(name: str, monkeypatch: pytest.MonkeyPatch):
    contender = CONTENDERS[name]
    if missing := [need for need in contender.needs if not installed(need)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    monkeypatch.setattr(data, "IMAGES", 16)
    run = contender.make(8)
    first, *_, last = (run() for _ in range(8))
    if first is None:
        return  # its loss stays in its own process
    assert loss(last) < 0.5 * loss(first)


def loss(result: Any) -> float:
    """The loss in whatever form a library's step returns it."""
    if isinstance(result, Metrics):
        return float(result.loss)
    return float(result.detach() if hasattr(result, "detach") else result)


def test_all_batches_are_full(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "IMAGES", 10)
    assert list(data.starts(5)) == [0, 5]
    assert list(data.starts(4)) == [0, 4]


def test_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = []

    def make(batch_size: int) -> Callable[[], None]:
        made.append(batch_size)
        return lambda: None

    fakes = {"jaxbn": Contender(("jaxbn",), make), "Flax": Contender(("no_such_library",), make)}
    monkeypatch.setattr(train_step, "CONTENDERS", fakes | {"Haiku": Contender((), make)})
    timings = {"jaxbn": Timing((1.0, 2.0, 1.0)), "Haiku": Timing((2.0, 4.0, 2.0))}
    monkeypatch.setattr(harness, "time_side_by_side", lambda functions, seconds: timings)
    monkeypatch.setattr(harness, "machine_rates", lambda: {"copy, GB/s": 1.0})
    path = tmp_path / "train_step.json"
    train_step.main(Options(batch_sizes=(32, 128), seconds=0, json=path, markdown=True))
    assert made == [32, 32, 128, 128]
    saved = json.loads(path.read_text())
    assert saved["environment"]["copy, GB/s"] == 1.0
    found = [(r["name"], r["batch_size"], r["images_per_second"], r["ratio"]) for r in saved["records"]]
    rows = [("jaxbn", 3072.0, 1.0), ("Haiku", 1536.0, 0.5)]
    assert found == [(name, size, speed, ratio) for size in (32, 128) for name, speed, ratio in rows]
    assert "| Haiku, batch 32 | 1,536 |" in capsys.readouterr().out


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(SystemExit, match="4000 is not between 1 and 3072"):
        train_step.main(Options(batch_sizes=(32, 4000)))
