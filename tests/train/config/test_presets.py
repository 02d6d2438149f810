"""`python -m train presets`: every preset with what to expect of it, in 80 columns and in the documentation."""

from pathlib import Path
from typing import get_args

import pytest

from train.commands.cli import main
from train.commands.presets import difference, expected
from train.config.presets import RECORDS, Record
from train.config.sections import PRESETS, Preset

TUTORIAL = Path(__file__).parents[3] / "docs" / "tutorial.md"


def row(name, record: Record):
    """A row of the tutorial's table."""
    network, data, accuracies, seconds, _ = record
    accuracy = expected(accuracies).replace("\n", ", ")
    return f"| `python -m train --preset {name}` | {network} | {data} | {accuracy} | {seconds or '–'} |"


def test_every_preset_can_be_named():
    assert tuple(PRESETS) == tuple(RECORDS) == get_args(Preset)


def test_the_tutorial_has_the_same_table():
    text = TUTORIAL.read_text(encoding="utf-8")
    for name, record in RECORDS.items():
        assert row(name, record) in text


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_fits(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["presets"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert "…" not in output
    assert max(map(len, output.splitlines())) <= columns
    lines = output.splitlines()
    for name in PRESETS:
        assert sum(line.startswith(f"{name} ") for line in lines) == 1, "a row of the table"
    words = " ".join(output.split())
    for name, config in PRESETS.items():
        assert f"{name}: {' '.join(difference(config))}" in words


def test_iris_mlp_is_at_least_as_good_as_the_tutorial_says():
    assert min(RECORDS["iris-mlp"].accuracies) >= 93.3
