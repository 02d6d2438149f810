"""Every study at a tiny size, from the command's function to its files; and that verdicts follow from numbers alone."""

import dataclasses
import json
import re
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from train.data import load
from train.studies import page, run
from train.studies.cli import StudyName
from train.studies.study import Study

SMALL = {"seeds": 2, "train_images": 64, "test_images": 40}
TINY = {
    "init-scale": {"seeds": 2, "deviations": 2, "images": 40, "hidden": (6,), "batch_size": 20, "epochs": 2},
    "learning-rate": SMALL
    | {"rates": (0.1, 3.0), "channels": (2,), "hidden": 4, "batch_size": 16, "steps": 4, "every": 2, "target": 11.0},
    "activations": SMALL | {"hidden": (6, 5), "batch_size": 16, "steps": 6, "every": 2},
    "vanishing": SMALL | {"depth": 2, "width": 6, "batch_size": 16, "steps": 2},
    "regularization": SMALL | {"hidden": (6,), "dropouts": (0.0, 0.5), "batch_size": 16, "ghost": 4, "steps": 2},
    "placement": SMALL | {"channels": (2,), "hidden": 4, "batch_size": 16, "mlp_steps": 8, "cnn_steps": 8},
    "smoothness": SMALL | {"hidden": (6, 5), "multiples": (0.5, 4.0), "batch_size": 16, "steps": 4, "every": 2},
    "small-batch": SMALL | {"hidden": (6,), "batch_size": 8, "groups": (2, 8), "steps": 40},
    "ghost-batch": SMALL | {"hidden": (6,), "batch_size": 32, "small_batch": 8, "ghosts": (4, 8), "epochs": 1},
    "running-stats": SMALL
    | {"hidden": (6,), "batch_size": 16, "every": 2, "measurements": 2, "recalibrated_at": (2, 4), "samples": 30},
}


@pytest.fixture(scope="module")
def data():
    return run.data_of(load("digits"))


def tiny(name: str) -> Study:
    study = run.find(name)
    return dataclasses.replace(study, quick=dataclasses.replace(study.quick, **TINY[name]))


@pytest.fixture(scope="module")
def results(data, tmp_path_factory):
    """A folder with the results of every study."""
    folder = tmp_path_factory.mktemp("studies")
    for name in run.NAMES:
        run.run(tiny(name), data, folder / name)
    return folder


def test_every_study_is_listed_once():
    assert get_args(StudyName) == ("all", *run.NAMES)
    assert set(TINY) == set(run.NAMES)
    assert [run.find(name).name for name in run.NAMES] == list(run.NAMES)


def test_every_study_leaves_its_record(results):
    for name in run.NAMES:
        record = json.loads((results / name / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
        assert (record["study"], record["form"], record["data"]) == (name, "quick", "digits")
        assert record["verdict"] in ("reproduced", "partly reproduced", "not reproduced")
        assert record["seeds"] == 2
        assert record["settings"]["seeds"] == 2
        assert "{" not in record["procedure"]
        assert {len(row) for row in record["table"]["rows"]} == {len(record["table"]["header"])}
        assert record["numbers"]
        assert set(record["machine"]) == {"device", "cores", "python", "jax", "jaxbn"}


def test_every_figure_is_small_and_of_the_width_of_a_page(results):
    for name in run.NAMES:
        path = results / name / "figure.png"
        assert path.stat().st_size < 100_000
        with Image.open(path) as image:
            assert image.width == 800


def test_the_page_is_made_of_the_results_alone(results, tmp_path):
    path = page.write(results, tmp_path / "docs")
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "docs" / "studies.md"
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(run.NAMES)
    for name in run.NAMES:
        record = json.loads((results / name / "results.json").read_text(encoding="utf-8"))
        assert f"](#{name}) | **{record['verdict']}** | {record['headline']} | 2 |" in text
        assert f"(studies/{name}.png)" in text
        assert (tmp_path / "docs" / "studies" / f"{name}.png").read_bytes() == (
            results / name / "figure.png"
        ).read_bytes()
        for row in record["table"]["rows"]:
            assert f"| {' | '.join(row)} |" in text
    assert str(results) not in text
    assert "{" not in text


def test_the_page_has_what_there_is(results, tmp_path):
    (tmp_path / "some" / "vanishing").mkdir(parents=True)
    for name in ("results.json", "figure.png"):
        (tmp_path / "some" / "vanishing" / name).write_bytes((results / "vanishing" / name).read_bytes())
    text = page.write(tmp_path / "some", tmp_path).read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["vanishing"]


def test_a_study_repeats_itself(data):
    study = tiny("regularization")
    first, second = (study.measure(data, study.quick) for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_the_full_form_has_the_fields_and_more_of_them():
    for name in run.NAMES:
        study = run.find(name)
        assert type(study.full) is type(study.quick)
        assert study.full.seeds >= study.quick.seeds
        assert study.full != study.quick
