"""Records: no flipped bit goes unnoticed, and what earlier versions wrote is read as it is.

JAXBN_FLIPS says how many flipped bits are tried (40 by default).
"""

import dataclasses
import json
import logging
import os
import random

import pytest

from train.host import records
from train.runs import results
from train.training.loop import Epoch, Progress

FLIPS = int(os.environ.get("JAXBN_FLIPS", "40"))
PROGRESS = [Progress(1, step, 1.5 / step, 0.5, 1234.5) for step in range(1, 7)]
EPOCHS = [Epoch(epoch, 3 * epoch, 0.5 / epoch, 0.75, None, None, 0.25, 0.875, 1e3, 0.1 * epoch) for epoch in (1, 2)]
OLD = {"dataset": "iris", "source": "s", "note": ""}


@pytest.fixture
def heard(caplog):
    """The messages that are reported, including those that another test has already seen."""
    records._report.cache_clear()
    with caplog.at_level(logging.WARNING, "train"):
        yield caplog


def messages(heard):
    return [record.getMessage() for record in heard.records]


@pytest.fixture
def folder(tmp_path, blobs):
    """The records of two epochs of three steps."""
    for progress in PROGRESS:
        results.record(tmp_path, blobs, progress)
    for epoch in EPOCHS:
        results.record(tmp_path, blobs, epoch)
    return tmp_path


def test_what_was_written_comes_back(folder, heard):
    for _ in range(2):  # the second time as the first one has left it
        assert results.rewind(folder, 6, 3) == (PROGRESS, EPOCHS)
    assert results.rewind(folder, 4, 2) == (PROGRESS[:4], EPOCHS[:1])
    assert len((folder / results.METRICS).read_bytes().splitlines()) == 1
    assert messages(heard) == []


@pytest.mark.parametrize("name", [results.METRICS, results.PROGRESS])
def test_every_flipped_bit_is_reported_and_changes_nothing_else(name, folder, heard):
    whole = {each: (folder / each).read_bytes() for each in (results.METRICS, results.PROGRESS)}
    every = range(8 * len(whole[name]))
    for bit in random.Random(0).sample(every, min(FLIPS, len(every))):
        changed = bytearray(whole[name])
        changed[bit // 8] ^= 1 << bit % 8
        for each, content in whole.items():
            (folder / each).write_bytes(changed if each == name else content)
        heard.clear()
        records._report.cache_clear()
        progress, epochs = results.rewind(folder, 6, 3)
        lost = [each for each in PROGRESS if each not in progress] + [each for each in EPOCHS if each not in epochs]
        assert 1 <= len(lost) <= 2  # two where the end of a line was hit
        assert all(each in PROGRESS for each in progress)
        assert all(each in EPOCHS for each in epochs)
        assert f"{folder / name}: line " in messages(heard)[0]
        assert " is damaged and skipped (" in messages(heard)[0]


def test_lost_epochs_and_steps_are_named(folder, heard):
    lines = (folder / results.METRICS).read_bytes().splitlines(keepends=True)
    (folder / results.METRICS).write_bytes(lines[1])
    (folder / results.PROGRESS).write_bytes(b"")
    assert results.rewind(folder, 6, 3) == ([], EPOCHS[1:])
    assert messages(heard) == [
        f"{folder / results.PROGRESS} does not reach step 6, from which the run continues",
        f"{folder / results.METRICS} has no intact record of epoch 1; the run continues without it",
    ]


def test_a_line_that_was_being_written_is_left_out_silently(folder, heard):
    whole = (folder / results.PROGRESS).read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for length in range(len(whole) - last, len(whole)):
        (folder / results.PROGRESS).write_bytes(whole[:length])
        progress = records.read(folder / results.PROGRESS, Progress)
        assert len(progress) == (5 if length < len(whole) - 1 else 6)
    assert messages(heard) == []


def test_records_of_earlier_versions_are_read_as_they_are(tmp_path, heard):
    """Without checksums; with the first rewind they get them."""
    for name, written in (
        (results.PROGRESS, [dataclasses.asdict(each) for each in PROGRESS]),
        (results.METRICS, [dataclasses.asdict(each) | OLD for each in EPOCHS]),
    ):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in written))
    for _ in range(2):
        assert results.rewind(tmp_path, 6, 3) == (PROGRESS, EPOCHS)
        assert [record["dataset"] for record in results.measured(tmp_path)] == ["iris", "iris"]
    assert all(b'"crc32": ' in line for line in (tmp_path / results.METRICS).read_bytes().splitlines())
    assert messages(heard) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"epoch": 1' + b"0" * 5000 + b"}", "digits"),
        (b"[]", "it must be an object of fields; got []"),
        (b'{"epoch": 1}', "is missing"),
        (
            b'{"epoch": 1, "step": 1, "loss": "1", "accuracy": 1, "images_per_second": 1}',
            'loss must be a number; got "1"',
        ),
        (b'{"epoch": 1, "step": 1, "loss": 1, "accuracy": 1, "images_per_second": 1, "crc33": "00000000"}', "'crc33'"),
        (b'{"epoch": 1, "step": 1, "loss": 1, "accuracy": 1, "images_per_second": 1, "crc32": "00000000"}', "checksum"),
        (b"\xff\xfe", "can't decode"),
    ],
)
def test_other_lines_are_reported(line, reason, tmp_path, heard):
    (tmp_path / "file").write_bytes(line + b"\n")
    for _ in range(2):
        assert records.read(tmp_path / "file", Progress) == []
    (message,) = messages(heard)  # once
    assert message.startswith(f"{tmp_path / 'file'}: line 1 is damaged and skipped (")
    assert reason in message
    assert len(message) < 500


def test_what_a_newer_version_adds_is_passed_over(tmp_path, heard):
    records.append(tmp_path / "file", dataclasses.asdict(PROGRESS[0]) | {"gradient_norm": 1.0})
    assert records.read(tmp_path / "file", Progress) == [dataclasses.asdict(PROGRESS[0])]
    assert messages(heard) == []
