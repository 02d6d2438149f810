"""Nothing of a run is lost or mixed up: damaged records, checkpoints of other runs, two runs of one name."""

import json
import logging
import shlex
import shutil

import pytest

from train.commands.cli import main
from train.config import config_file
from train.host import records
from train.runs import checkpoint, identity, results
from train.runs.restored import restore
from train.runs.writer import Writer

TINY = shlex.split("--no-report --dataset iris --hidden 8 --batch-size 40 --validation 0 --epochs 4 --schedule cosine")


def run(runs, *arguments, name="run"):
    return main([*TINY, "--runs-dir", str(runs), "--name", name, *arguments])


def arrays(folder):
    """The digest of the newest checkpoint's arrays."""
    return json.loads((max((folder / "checkpoints").iterdir()) / "position.json").read_text())["arrays"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 4 epochs of 3 steps, with a checkpoint after each."""
    runs = tmp_path_factory.mktemp("whole")
    assert run(runs, "--checkpoint-epochs", "1", "--keep-checkpoints", "9") == 0
    return runs / "run"


@pytest.fixture
def stopped(whole, tmp_path):
    """The same run, as if it had been killed after 2 epochs."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for step in (9, 12):
        shutil.rmtree(folder / "checkpoints" / f"step-{step:09d}")
    return folder


@pytest.fixture
def heard(caplog):
    records._report.cache_clear()
    with caplog.at_level(logging.WARNING, "train"):
        yield lambda: [record.getMessage() for record in caplog.records]


def resumed(folder):
    return main(["--resume", str(folder)])


def test_a_run_goes_on_beside_damaged_records(stopped, whole, heard):
    for name, line in ((results.METRICS, 1), (results.PROGRESS, 4)):
        lines = (stopped / name).read_bytes().splitlines(keepends=True)
        lines[line] = lines[line].replace(b"0.", b"1.", 1)
        (stopped / name).write_bytes(b"".join(lines))
    assert resumed(stopped) == 0
    assert heard() == [
        f"{stopped / results.PROGRESS}: line 5 is damaged and skipped (its checksum does not match)",
        f"{stopped / results.METRICS}: line 2 is damaged and skipped (its checksum does not match)",
        f"{stopped / results.METRICS} has no intact record of epoch 2; the run continues without it",
    ]
    assert arrays(stopped) == arrays(whole)
    assert [record["epoch"] for record in results.measured(stopped)] == [1, 3, 4]


def test_a_finished_run_without_any_intact_record_ends_well(whole, tmp_path, heard, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    content = (folder / results.METRICS).read_bytes()
    (folder / results.METRICS).write_bytes(content.replace(b"loss", b"lost"))
    assert resumed(folder) == 0
    assert len(heard()) == 5
    assert arrays(folder) == arrays(whole)
    capsys.readouterr()
    assert main(["export", str(folder)]) == 0
    assert "test accuracy: not measured at this step" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_is_evaluated_exported_and_goes_on(stopped, whole, heard, capsys):
    """Without checksums, without initial.json, and with checkpoints that do not say of which run they are."""
    for name in (results.METRICS, results.PROGRESS):
        found = [json.loads(line) for line in (stopped / name).read_text().splitlines()]
        lines = [json.dumps({key: value for key, value in record.items() if key != "crc32"}) for record in found]
        (stopped / name).write_text("".join(line + "\n" for line in lines))
    (stopped / identity.INITIAL).unlink()
    for folder in (stopped / "checkpoints").iterdir():
        contents = json.loads((folder / "position.json").read_text())
        contents = {name: contents[name] for name in ("position", "data", "arrays")}
        contents["data"].pop("published", None)
        (folder / "position.json").write_text(json.dumps(contents))
        (folder / "SHA256SUMS").write_text(checkpoint.sums(folder))
    for command in ("evaluate", "export"):
        assert main([command, str(stopped)]) == 0
    accuracy = results.measured(whole)[1]["test_accuracy"]
    assert f"test accuracy: {accuracy:.2%}" in capsys.readouterr().out
    assert resumed(stopped) == 0
    assert resumed(stopped) == 0  # and once more, now that it has checkpoints of both versions
    assert heard() == []
    assert arrays(stopped) == arrays(whole)


def test_a_checkpoint_of_another_run_is_not_used(stopped, whole, tmp_path, heard):
    assert run(tmp_path, "--seed", "1", name="other") == 0
    foreign = stopped / "checkpoints" / "step-000000013"
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-000000012", foreign)
    assert int(restore(stopped, tmp_path).state.step) == 6
    assert heard() == [
        f"{foreign} belongs to another run: --seed is 1 there and 0 in this run; skipped",
        f"continuing from {stopped / 'checkpoints' / 'step-000000006'}, the newest intact one",
    ]
    assert resumed(stopped) == 0
    assert foreign.exists()  # it may be the only one that the other run has
    shutil.rmtree(foreign)
    assert arrays(stopped) == arrays(whole)


def test_a_checkpoint_of_a_run_that_began_otherwise_is_not_used(stopped, whole, heard):
    """The same options, and other initial parameters, as another version of a library may draw them."""
    identity.write_initial(stopped, "0" * 64)
    assert resumed(stopped) == 1
    assert "belongs to another run: it started from other parameters; skipped" in heard()[0]
    (stopped / identity.INITIAL).write_bytes(b"damaged\n")  # the options are still there to tell
    assert resumed(stopped) == 0
    assert f"{stopped / identity.INITIAL}: line 1 is damaged and skipped" in "".join(heard())
    assert arrays(stopped) == arrays(whole)


def test_a_checkpoint_that_names_no_run_is_not_used_in_one_that_does(tmp_path):
    mine = identity.Identity({"seed": 0}, "a" * 64)
    assert mine.difference(mine) is None
    assert mine.difference(None) == "it does not name its run"
    assert identity.Identity({"seed": 0}, None).difference(None) is None
    assert mine.difference(identity.Identity({"seed": 0, "of a newer version": 1}, "a" * 64)) is None
    assert mine.difference(identity.Identity({"seed": 1}, "a" * 64)) == "--seed is 1 there and 0 in this run"


def test_a_run_that_has_ended_meanwhile_is_not_wiped(tmp_path, monkeypatch, capsys):
    """Two runs of one name: while the first loads its data, the second begins and ends."""
    from train.commands import train

    load, began = train.load, []

    def slowly(*arguments, **options):
        if not began:
            began.append(True)
            assert run(tmp_path) == 0
        return load(*arguments, **options)

    monkeypatch.setattr(train, "load", slowly)
    assert run(tmp_path) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'run'} contains an earlier run; pass another --name, or --overwrite to replace it\n"
    )
    assert len(results.measured(tmp_path / "run")) == 4
    assert int(restore(tmp_path / "run", tmp_path).state.step) == 12


@pytest.mark.parametrize("name", [results.CONFIG, results.METRICS, results.VARIABLES, results.REPORT])
def test_what_a_killed_write_left_is_in_nobodys_way(name, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for left in (f".{name}.part", results.LOCK):
        (folder / left).write_bytes(b"half")
    Writer(folder).check(overwrite=False)  # there is nothing to lose
    config_file.write_run(folder, config_file.Config())
    (folder / f".{name}.part").write_bytes(b"half")
    with pytest.raises(FileExistsError, match="contains an earlier run"):
        Writer(folder).check(overwrite=False)
    Writer(folder).check(overwrite=True)
    Writer(folder).clear()
    assert [path.name for path in folder.iterdir()] == [results.LOCK]
