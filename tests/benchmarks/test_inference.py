import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import small_run
from closeness import assert_close

from benchmarks import inference
from benchmarks.inference import Options, of_run
from train.data import load


def test_a_run_is_read_and_folding_changes_nothing(tmp_path: Path):
    small_run.write(tmp_path / "run", small_run.DIGITS, small_run.CNN)
    normed, folded = of_run(tmp_path / "run")
    assert len(jax.tree.leaves(folded)) < len(jax.tree.leaves(normed))
    images = np.random.default_rng(1).integers(0, 256, (7, *small_run.DIGITS.input_shape), np.uint8)
    expected = inference.logits_of(normed, images, batch_size=3)
    assert_close(inference.logits_of(folded, images), expected, condition=50)


def test_a_run_without_convolutions_is_refused(tmp_path: Path):
    small_run.write(tmp_path / "run", small_run.IRIS, small_run.MLP)
    with pytest.raises(ValueError, match="no convolutional network"):
        of_run(tmp_path / "run")


def test_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "inference.json"
    digits = load("digits")
    few = {"train_inputs": digits.train_inputs[:512], "train_labels": digits.train_labels[:512]}
    few |= {"test_inputs": digits.test_inputs[:101], "test_labels": digits.test_labels[:101]}
    monkeypatch.setattr(inference, "load", lambda name: dataclasses.replace(digits, **few))
    inference.main(Options(batch_sizes=(2,), seconds=0, json=path))
    agreement, *records = json.loads(path.read_text())["records"]
    assert agreement["dataset"] == "digits"
    assert agreement["same prediction"] == agreement["test images"] == 101
    assert agreement["accuracy folded"] == agreement["accuracy with norms"] > 0.2
    assert agreement["largest difference of logits, relative to the largest logit"] < 1e-5
    assert [(r["name"], r["batch_size"]) for r in records] == [("with norms", 2), ("folded", 2)]
    printed = capsys.readouterr().out
    assert "folded, batch 2" in printed
    assert "same prediction" in printed
