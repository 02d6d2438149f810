import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from flax.traverse_util import flatten_dict

from benchmarks import inference
from benchmarks.inference import Network, Options, folded, of_run
from train.data import load


def small() -> tuple[Network, dict]:
    """A network with some history, of the form of the trained one."""
    model = Network((4, 6), 8, 10, epsilon=1e-3)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((2, 12, 12, 1), jnp.uint8))
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda a: a + jnp.asarray(rng.uniform(0, 0.5, a.shape), a.dtype), variables)


def save(folder: Path, variables: dict) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"norm": {"norm_epsilon": 1e-3}}))
    arrays = {name: np.asarray(leaf) for name, leaf in flatten_dict(variables, sep="/").items()}
    np.savez(folder / "variables.npz", allow_pickle=False, **arrays)


def test_folding_changes_nothing():
    model, variables = small()
    images = np.random.default_rng(1).integers(0, 256, (7, 12, 12, 1), np.uint8)
    expected = inference.logits_of(model, variables, images, batch_size=3)
    without, kernels = folded(model, variables)
    assert sorted(kernels["params"]) == ["conv1", "conv2", "dense", "logits"]
    assert_close(inference.logits_of(without, kernels, images), expected, condition=50)


def test_a_run_is_read_as_it_was_written(tmp_path: Path):
    model, variables = small()
    save(tmp_path / "run", variables)
    read, values = of_run(tmp_path / "run")
    assert read == model
    jax.tree.map(np.testing.assert_array_equal, values, variables)


def test_a_run_without_convolutions_is_refused(tmp_path: Path):
    save(tmp_path / "run", {"params": {"dense1": {"kernel": np.ones((2, 3))}}})
    with pytest.raises(ValueError, match="run holds no convolutional network"):
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
