"""The files of a run, read back."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from train.config import config_file
from train.config.sections import Config, DataConfig, NormConfig, OptimizerConfig, RunConfig
from train.runs import results
from train.runs.writer import Writer

PARAMS = {
    "params/conv1/kernel": (3, 3, 1, 4),
    "params/norm1/scale": (4,),
    "params/norm1/bias": (4,),
    "params/dense/kernel": (100, 8),
    "params/dense/bias": (8,),
    "params/logits/kernel": (8, 3),
    "params/logits/bias": (3,),
}
STATISTICS = {"batch_stats/norm1/mean": (4,), "batch_stats/norm1/var": (4,)}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_folder_is_made_with_its_parents(tmp_path, overwrite):
    for _ in range(2):  # an empty one is as good as a new one
        folder = tmp_path / "a" / "b"
        Writer(folder).check(overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        assert list(folder.iterdir()) == []


def test_an_earlier_run_is_replaced_only_on_request(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    config_file.write_run(folder, Config())
    (folder / "checkpoints" / "step-000000001").mkdir(parents=True)
    with pytest.raises(
        FileExistsError, match=r"run contains an earlier run; pass another --name, or --overwrite to replace"
    ):
        Writer(folder).check(overwrite=False)
    assert (folder / "config.json").exists()
    Writer(folder).check(overwrite=True)
    Writer(folder).clear()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_deleted(tmp_path, overwrite):
    folder, file, link = tmp_path / "thesis", tmp_path / "notes", tmp_path / "link"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "chapter").write_text("of years")
    file.write_text("of months")
    link.symlink_to(folder)
    with pytest.raises(FileExistsError, match="thesis contains chapter, which no run writes"):
        Writer(tmp_path / "thesis").check(overwrite=overwrite)
    for name in ("notes", "link"):
        with pytest.raises(FileExistsError, match=f"{name} is not the folder of a run"):
            Writer(tmp_path / name).check(overwrite=overwrite)


def test_the_configuration_is_written_option_by_option(tmp_path):
    config = Config(
        preset="mnist-cnn-keras",
        data=DataConfig(dataset="mnist", data_dir=tmp_path / "ü"),
        norm=NormConfig(norm_momentum=0.5, norm_epsilon=1e-3),
        optimizer=OptimizerConfig(epochs=7, batch_size=9, learning_rate=0.25, schedule="cosine"),
        run=RunConfig(name="a", seed=3),
    )
    config_file.write_run(tmp_path, config)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    written = json.loads(text)
    assert written["preset"] == "mnist-cnn-keras"
    assert written["data"] == {"dataset": "mnist", "data_dir": str(tmp_path / "ü"), "validation": 0.0}
    assert written["norm"] | {"norm_momentum": 0.5, "norm_epsilon": 1e-3} == written["norm"]
    assert {name: set(values) for name, values in written.items() if name != "preset"} == {
        name: {field.name for field in dataclasses.fields(getattr(config, name))}
        for name in ("data", "model", "norm", "optimizer", "run", "devices")
    }


def test_each_epoch_is_a_line(tmp_path, blobs, recorded):
    noted = dataclasses.replace(blobs, note="öffentlich")
    for epoch in recorded.epochs:
        results.record(tmp_path, noted, epoch)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [
        dataclasses.asdict(epoch) | {"dataset": "blobs", "source": "drawn", "note": "öffentlich"}
        for epoch in recorded.epochs
    ]
    written = [json.loads(line) for line in lines]
    assert all(re.fullmatch("[0-9a-f]{8}", line.pop("crc32")) for line in written)
    assert written == expected
    assert expected[-1].keys() >= {"epoch", "step", "train_loss", "test_loss", "test_accuracy", "train_seconds"}


def test_the_variables_are_those_of_the_state(tmp_path, recorded):
    state = recorded.states[-1]
    Writer(tmp_path).finish(jax.tree.map(jax.numpy.asarray, state))
    with np.load(tmp_path / "variables.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    assert {name: array.shape for name, array in arrays.items()} == PARAMS | STATISTICS
    for name, array in arrays.items():
        kind, layer, leaf = name.split("/")
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, getattr(state, kind)[layer][leaf])
