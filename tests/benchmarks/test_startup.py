import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.startup import Measured, Options, phases


def test_phases_are_what_lies_between_the_marks():
    marks = {"imports": (1.0, 2.0), "data": (1.5, 2.0), "training": (3.25, 4.0)}
    assert phases(marks) == {"imports": (1.0, 2.0), "data": (0.5, 0.0), "training": (1.75, 2.0)}


def test_the_least_of_several_is_taken():
    assert startup.fastest(Measured(time, 9.0, "") for time in (3.0, 1.0, 2.0)) == Measured(1.0, 9.0, "")


def test_a_process_that_fails_is_an_error(tmp_path: Path):
    with pytest.raises(RuntimeError, match="no_such_name"):
        startup.run(["-c", "no_such_name"], tmp_path)


def test_jaxbn_adds_next_to_nothing_to_jax(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """jaxbn imports only its own modules and those of JAX."""
    code = """
import sys, jax
before = set(sys.modules)
import jaxbn
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}), file=sys.stderr)
"""
    assert startup.run(["-c", code], tmp_path).errors in ("['jaxbn']\n", "['jax', 'jaxbn']\n")


def test_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = ["python alone", "python -m train --help"]
    monkeypatch.setattr(startup, "COMMANDS", {name: startup.COMMANDS[name] for name in names})
    path = tmp_path / "startup.json"
    startup.main(dataclasses.replace(Options(), repeat=1, dataset="iris", json=path, markdown=True))
    records = json.loads(path.read_text())["records"]
    starts = [f"{which} start, to the result on iris" for which in ("first", "second")]
    assert [record["name"] for record in records] == [*names, *starts]
    for record in records[2:]:
        assert list(record["phases"]) == ["imports", "data", "setting up", "programs", "training"]
        processor, wall = map(sum, zip(*record["phases"].values(), strict=True))
        assert processor <= record["processor"]
        assert 0 < wall <= record["wall"]
    first, second = (record["phases"]["programs"] for record in records[2:])
    assert second < first
    assert "| of it programs | " in capsys.readouterr().out
