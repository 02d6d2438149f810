"""Every study at a tiny size, from the command's function to its files; and that verdicts follow from numbers alone."""

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from train.commands.cli import main, parse
from train.data import load
from train.studies import page, run
from train.studies.names import NAMES, StudyName
from train.studies.study import Verdict, seeds_of
from train.studies.terminal import Monitor

SMALL = {"seeds": 2, "train_images": 64, "test_images": 40}
TINY = {
    "init-scale": {"seeds": 2, "deviations": 2, "images": 40, "hidden": (6,), "batch_size": 20, "epochs": 2},
    "learning-rate": SMALL
    | {"rates": (0.1, 3.0), "channels": (2,), "hidden": 4, "batch_size": 16, "steps": 4, "every": 2, "target": 11.0},
    "activations": SMALL | {"hidden": (6, 5), "batch_size": 16, "steps": 6, "every": 2},
    "vanishing": SMALL | {"activations": ("sigmoid",), "depth": 2, "width": 6, "batch_size": 16, "steps": 2},
    "regularization": SMALL | {"hidden": (6,), "dropouts": (0.0, 0.5), "batch_size": 16, "ghost": 4, "steps": 2},
    "placement": SMALL | {"channels": (2,), "hidden": 4, "batch_size": 16, "mlp_steps": 8, "cnn_steps": 8},
    "smoothness": SMALL | {"hidden": (6, 5), "multiples": (0.5, 4.0), "batch_size": 16, "steps": 4, "every": 2},
    "small-batch": SMALL | {"hidden": (6,), "batch_size": 8, "groups": (2, 8), "steps": 40},
    "ghost-batch": SMALL
    | {"hidden": (6,), "batch_size": 32, "small_batch": 8, "ghosts": (4, 8), "judged": 4, "epochs": 1},
    "running-stats": SMALL
    | {"hidden": (6,), "batch_size": 16, "every": 2, "measurements": 2, "recalibrated_at": (2, 4), "samples": 30},
}


def test_every_study_is_listed_once():
    assert get_args(StudyName) == ("all", *NAMES)
    assert set(TINY) == set(NAMES)
    assert [run.find(name).name for name in NAMES] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_leaves_its_record_and_its_figure(name, tmp_path):
    study = run.find(name)
    study = dataclasses.replace(study, quick=dataclasses.replace(study.quick, **TINY[name]))
    told = []
    finding = run.run(study, run.data_of(load("digits")), tmp_path / name, tell=told.append)
    assert sum(told) == study.networks(study.quick)
    record = json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (record["study"], record["form"], record["data"], record["seeds"]) == (name, "quick", "digits", 2)
    assert (record["verdict"], record["headline"]) == (finding.verdict, finding.headline)
    assert record["verdict"] in get_args(Verdict)
    assert record["settings"]["seeds"] == 2
    assert "{" not in record["procedure"] + record["criterion"]
    assert record["criterion"].startswith(("Reproduced: ", "The cases are "))
    assert record["first_seed"] == 0
    assert {len(row) for row in record["table"]["rows"]} == {len(record["table"]["header"])}
    assert record["numbers"]
    assert set(record["machine"]) == {"device", "cores", "python", "jax", "jaxbn"}
    path = tmp_path / name / "figure.png"
    assert path.stat().st_size < 100_000
    with Image.open(path) as image:
        assert image.width == 800


def monitor(console, steps, seconds):
    """The output of a monitor while networks are trained, each in so many seconds."""
    time = 0.0
    with Monitor(console, "vanishing (4 of 10), on digits", steps, clock=lambda: time) as shown:
        for _ in range(steps):
            time += seconds
            shown.advance(1)
            if console.is_terminal:
                shown._bar.refresh()


def test_a_log_says_now_and_then_how_far_a_study_is():
    monitor(Console(file=(stream := io.StringIO()), width=60), 7, 4)
    assert stream.getvalue().splitlines() == [
        "vanishing (4 of 10), on digits: 7 networks to train",
        "vanishing (4 of 10), on digits: 3/7 networks, 16 s left",
        "vanishing (4 of 10), on digits: 6/7 networks, 4 s left",
    ]


def test_a_terminal_shows_how_far_a_study_is():
    stream = io.StringIO()
    monitor(Console(file=stream, width=60, force_terminal=True, color_system=None, legacy_windows=False), 120, 9)
    lines = re.split(r"[\r\n]|\x1b\[[^m]*?[A-Za-z]", stream.getvalue())
    assert any(re.fullmatch(r"vanishing \(4 of 10\), on digits ━+╺?━* +60/120  9 min left", line) for line in lines), (
        lines
    )
    assert max(map(len, lines)) <= 60


def test_the_command_runs_a_study_with_progress(monkeypatch, tmp_path, capsys):
    study = run.find("init-scale")
    study = dataclasses.replace(study, quick=dataclasses.replace(study.quick, **TINY["init-scale"]))
    monkeypatch.setattr(run, "find", lambda _: study)
    assert main(["study", "init-scale", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("init-scale, on digits: 8 networks to train\n")


@pytest.fixture
def results(tmp_path):
    """A folder with made-up results of every study, and of the full form of one."""
    for name in (*NAMES, "vanishing-full"):
        full = name == "vanishing-full"
        record = {
            "study": "vanishing" if full else name,
            "form": "full" if full else "quick",
            "verdict": "partly reproduced",
            "headline": f"The finding of {name}",
            "summary": f"All that {name} found.",
            "table": {"header": ["a", "b"], "rows": [["1", "2.0 ± 0.1"]]},
            "procedure": "The method.",
            "criterion": "Reproduced: yes.",
            "data": "digits",
            "seeds": 2,
            "first_seed": 100 if full else 0,
            "seconds": 12.3,
            "machine": {"device": "cpu", "cores": 2, "jax": "0.10"},
        }
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "results.json").write_text(json.dumps(record), encoding="utf-8")
        (tmp_path / "results" / name / "figure.png").write_bytes(name.encode())
    return tmp_path / "results"


def test_the_page_is_made_of_the_results(results, tmp_path):
    path = page.write(results, tmp_path / "docs")
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "docs" / "studies.md"
    names = list(NAMES)
    names.insert(names.index("vanishing") + 1, "vanishing-full")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == names
    for name in names:
        full, title = name == "vanishing-full", run.find(name.removesuffix("-full")).title
        shown = f"{title}, confirmation" if full else title
        assert f"| [{shown}](#{name}) | **partly reproduced** | The finding of {name} | 2 | 12 |" in text
        assert f"**{title}: partly reproduced.** All that {name} found." in text
        assert f"![The finding of {name}](studies/{name}.png)" in text
        assert (tmp_path / "docs" / "studies" / f"{name}.png").read_bytes() == name.encode()
    assert text.count("| a | b |\n| :--- | ---: |\n| 1 | 2.0 ± 0.1 |") == len(names)
    assert text.count("*Criterion.* Reproduced: yes.") == len(names)
    assert "`python -m train study vanishing --full` (confirms), on digits, seeds 100 to 101 in every cell" in text
    assert "`python -m train study placement` (explores), on digits, seeds 0 to 1 in every cell" in text
    assert str(tmp_path) not in text


def test_the_page_has_what_there_is(results, tmp_path):
    for name in NAMES:
        (results / name / "results.json").unlink()
    text = page.write(results, tmp_path).read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["vanishing-full"]


def test_the_command_reads_its_options():
    options = parse(["study", "small-batch", "--full", "--output", "there"])
    assert (options.name, options.full, options.output, options.docs) == ("small-batch", True, Path("there"), None)


def test_data_that_cannot_be_had_end_in_one_line(tmp_path, capsys):
    assert main(["study", "vanishing", "--data-dir", str(tmp_path)]) == 1
    assert re.fullmatch(r"error: .* lacks train-images-idx3-ubyte.*\n", capsys.readouterr().err)


def test_the_full_form_confirms_with_seeds_that_the_quick_form_did_not_use():
    for name in NAMES:
        study = run.find(name)
        assert type(study.full) is type(study.quick)
        assert len(seeds_of(study.full)) >= 10
        assert seeds_of(study.full)[0] >= 100
        assert not {*seeds_of(study.full)} & {*seeds_of(study.quick)}


def test_the_seeds_are_those_that_the_networks_get():
    """A study with other seeds has other numbers, and the same for those that it shares."""
    study, data = run.find("init-scale"), run.data_of(load("digits"))
    settings = dataclasses.replace(study.quick, **TINY["init-scale"])
    first, second = (study.measure(data, dataclasses.replace(settings, first_seed=n))["with"] for n in (100, 101))
    np.testing.assert_array_equal(first[:, 1], second[:, 0])
    assert not np.array_equal(first[:, 0], second[:, 0])
