"""Colour images from the first option to the last picture: a preset on a small CIFAR-10, and what comes of its run."""

import json

import numpy as np
import pytest
from PIL import Image

from train.commands.cli import main
from train.data.cifar10 import BATCHES
from train.data.published import PUBLISHED

COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with CIFAR-10's six files, 16 images each: airplanes are red, automobiles green and birds blue."""
    folder, random = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for batch in BATCHES:
        labels = random.integers(0, 3, 16)
        pixels = (COLOURS[labels][..., None] + random.integers(-30, 30, (16, 3, 1024))).astype(np.uint8)
        records = np.concatenate([labels[:, None].astype(np.uint8), pixels.reshape(16, -1)], axis=1)
        (folder / f"{batch}.bin").write_bytes(records.tobytes())
    return folder


@pytest.fixture(scope="module")
def run(command, files):
    """Forty steps of the preset, of fewer channels."""
    arguments = ("--preset", "cifar10-cnn", "--data-dir", str(files), "--batch-size", "16", "--epochs", "8")
    return command(*arguments, "--channels", "2", "2", "--hidden", "8", "--learning-rate", "0.02")


def test_a_preset_takes_its_files_from_a_folder(run, files):
    assert (run.code, run.errors) == (0, "")
    assert f"cifar10 (binary files in {files}): 80 training and 16 test examples" in run.output
    assert json.loads((run.folder / "config.json").read_text())["data"]["dataset"] == "cifar10"
    assert {path.name for path in run.folder.iterdir()} >= {"confusion.png", "mistakes.png", "report.html"}
    assert "cifar10" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_evaluation_says_what_training_said(run, capsys):
    assert main(["evaluate", str(run.folder)]) == 0
    assert run.metrics[-1]["test_accuracy"] >= 0.9
    assert f"test accuracy {run.metrics[-1]['test_accuracy']:.2%}" in capsys.readouterr().out


def test_what_is_exported_predicts_the_same_by_name(run, tmp_path, capsys):
    paths = [tmp_path / "red.png", tmp_path / "grey.png"]
    red = COLOURS[0] + np.random.default_rng(1).integers(-30, 30, (32, 32, 3))
    Image.fromarray(red.astype(np.uint8)).save(paths[0])
    Image.fromarray(np.random.default_rng(2).integers(60, 120, (32, 32), dtype=np.uint8)).save(paths[1])
    assert main(["export", str(run.folder)]) == 0
    capsys.readouterr()
    said = []
    for network in (run.folder, run.folder / "network.jaxbn"):
        assert main(["predict", str(network), *map(str, paths), "--top", "1"]) == 0
        said.append([line.split("\t") for line in capsys.readouterr().out.splitlines()])
    assert said[0] == said[1]
    assert [line[0] for line in said[0]] == list(map(str, paths))
    assert said[0][0][1] == "airplane", "the red ones are airplanes"
    assert said[0][1][1] in PUBLISHED["cifar10"].class_names


def test_an_image_of_one_colour_shows_nothing(run, tmp_path, capsys):
    Image.fromarray(np.full((32, 32, 3), (200, 30, 30), np.uint8)).save(tmp_path / "flat.png")
    assert main(["predict", str(run.folder), str(tmp_path / "flat.png")]) == 0
    assert capsys.readouterr().out.split("\t")[1:] == ["nothing\n"]
