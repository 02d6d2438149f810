"""The benchmark of the default recipe, run on iris instead of MNIST."""

import json

import pytest

from benchmarks import time_to_accuracy
from benchmarks.time_to_accuracy import Options, main, spread, train
from train.data import load


def test_spread():
    assert spread([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0 (1.0 to 3.0)"
    assert spread([2.0], 2) == "2.00 (2.00 to 2.00)"


def test_a_seed_repeats_its_run():
    outcomes = [train(load("iris"), epochs=3, seed=seed) for seed in (0, 0, 1)]
    losses = [outcome.loss for outcome in outcomes]
    assert losses[0] == losses[1] != losses[2]
    assert all(outcome.accuracy * 30 == pytest.approx(round(outcome.accuracy * 30)) for outcome in outcomes)


def test_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(time_to_accuracy, "load", lambda name, data_dir: load("iris"))
    main(Options(epochs=(1, 20), seeds=2, targets=(0.5, 1.1), torch=False, json=tmp_path / "out.json", markdown=True))
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line.split(" | ") for line in lines if line.startswith("| jaxbn, 20 epochs"))
    assert row[2:4] == ["2 of 2", "0 of 2"]
    records = json.loads((tmp_path / "out.json").read_text())["records"]
    assert [(record["epochs"], record["seed"]) for record in records] == [(1, 100), (1, 101), (20, 100), (20, 101)]
    assert all(record["accuracy"] >= 0.5 for record in records[2:])
