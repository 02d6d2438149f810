"""A run that is stopped, however, and goes on ends where the uninterrupted one does: to the bit.

JAXBN_KILLS says how many times a run is killed (2 by default).
"""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import small_disk

from train.commands.cli import main
from train.config import config_file
from train.runs import checkpoint, keeping, results
from train.runs.restored import restore
from train.runs.writer import Writer
from train.training.loop import Epoch, Position, Progress

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("JAXBN_KILLS", "2"))
CLOCK = {"images_per_second", "train_seconds", "crc32"}
# Everything that a run can forget: the keys of dropout and shifts, the norms' counts, an order an epoch, what was best.
TINY = shlex.split("--hidden 8 --dropout 0.2 --norm-average debiased --validation 0.2 --batch-size 8 --epochs 3")
DIGITS = shlex.split(
    "--dataset digits --channels 2 4 --hidden 8 --shift 1 --dropout 0.2 --norm-average debiased --validation 0.1 "
    "--checkpoint-minutes 0 --epochs 2"
)


def outcome(folder):
    """All that two runs must have in common: the records without the clock, and every array to the bit."""
    records = []
    for name in (results.METRICS, results.PROGRESS):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        records += [{key: value for key, value in json.loads(line).items() if key not in CLOCK} for line in lines]
    newest = [max((folder / kind).iterdir()) for kind in (results.CHECKPOINTS, results.BEST)]
    arrays = [json.loads((path / "position.json").read_text())["arrays"] for path in newest]
    state = restore(folder, folder.parent).state
    return records, arrays, state.step, (folder / results.VARIABLES).read_bytes()


def run(runs, *arguments):
    return main(["--no-report", "--dataset", "iris", "--runs-dir", str(runs), "--name", "run", *TINY, *arguments])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of 3 epochs of 12 steps, from beginning to end."""
    runs = tmp_path_factory.mktemp("whole")
    assert run(runs) == 0
    return outcome(runs / "run")


@pytest.fixture
def signals_at(monkeypatch):
    """Sends this process a signal when a run reports a step."""

    def install(step, number):
        write = results.record

        def record(folder, dataset, event):
            write(folder, dataset, event)
            if isinstance(event, Progress) and event.step == step:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(results, "record", record)

    return install


@pytest.mark.parametrize(
    ("number", "step", "code"),
    [(signal.SIGTERM, 7, 143), (signal.SIGINT, 12, 130), (signal.SIGTERM, 25, 143), (signal.SIGINT, 36, 130)],
)
def test_a_signal_saves_and_the_run_goes_on_to_the_same_end(
    number, step, code, signals_at, uninterrupted, tmp_path, capsys, monkeypatch
):
    """In the middle of an epoch, after its last step but before its evaluation, and at the very end."""
    before = signal.getsignal(number)
    signals_at(step, number)
    assert run(tmp_path) == code
    assert signal.getsignal(number) is before
    folder = tmp_path / "run"
    errors = capsys.readouterr().err
    again = " (press Ctrl-C again to stop at once, without saving)" if number == signal.SIGINT else ""
    assert errors.splitlines() == [
        f"stopping: the run is saved at the next safe point{again}",
        f"stopped and saved at step {step}. To continue: python -m train --resume {folder}",
    ]
    assert not (folder / results.VARIABLES).exists()
    monkeypatch.undo()
    assert main(errors.split("python -m train ")[1].split()) == 0
    assert outcome(folder) == uninterrupted


def test_a_second_signal_stops_at_once(monkeypatch, tmp_path, capsys):
    def record(*_):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)  # to this thread: others might be told later

    monkeypatch.setattr(results, "record", record)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may have been ignored
    try:
        assert run(tmp_path) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "stopped at once: nothing has been saved since the last checkpoint. "
        f"To continue: python -m train --resume {tmp_path / 'run'}"
    )


def test_without_a_report_everything_else_is_saved(monkeypatch, tmp_path, capsys):
    """Ctrl-C while the report is written."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.report.page.write_report", interrupt)
    assert main(["--dataset", "iris", "--runs-dir", str(tmp_path), "--name", "run", *TINY]) == 130
    errors, folder = capsys.readouterr().err, tmp_path / "run"
    assert errors == (
        f"stopped: the run is finished and saved, except for its report. To write it: python -m train report {folder}\n"
    )
    assert (folder / results.VARIABLES).exists()
    assert (folder / results.CURVES).exists()
    monkeypatch.undo()
    assert main(errors.split("python -m train ")[1].split()) == 0
    assert (folder / results.REPORT).exists()


def test_a_signal_that_comes_too_late_to_stop_training_leaves_out_the_report(monkeypatch, tmp_path, capsys):
    finish = Writer.finish

    def interrupted(writer, state):
        signal.raise_signal(signal.SIGINT)
        finish(writer, state)

    monkeypatch.setattr(Writer, "finish", interrupted)
    assert main(["--dataset", "iris", "--runs-dir", str(tmp_path), "--name", "run", *TINY]) == 130
    assert "the run is finished and saved, except for its report" in capsys.readouterr().err
    assert (tmp_path / "run" / results.VARIABLES).exists()


def test_a_run_that_never_came_to_a_checkpoint_begins_anew(monkeypatch, uninterrupted, tmp_path, capsys):
    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(results, "record", fail)
    assert run(tmp_path) == 1
    monkeypatch.undo()
    assert main(["--resume", "run", "--runs-dir", str(tmp_path)]) == 0
    assert outcome(tmp_path / "run") == uninterrupted


def test_a_run_on_a_full_disk_stops_and_goes_on_once_there_is_room(monkeypatch, uninterrupted, tmp_path, capsys):
    """From step 24 on the system refuses larger files, until the run is resumed."""
    write = results.record
    with contextlib.ExitStack() as disk:

        def record(folder, dataset, event):
            write(folder, dataset, event)
            if isinstance(event, Progress) and event.step == 24:
                disk.enter_context(small_disk(1000))

        monkeypatch.setattr(results, "record", record)
        assert run(tmp_path, "--checkpoint-epochs", "1") == 1
    monkeypatch.undo()
    folder = tmp_path / "run"
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {folder}/")
    assert errors.endswith(f"Everything saved before is kept. To continue: python -m train --resume {folder}\n")
    assert " cannot be written: File too large. " in errors
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000000012"]
    assert main(["--resume", str(folder)]) == 0
    assert outcome(folder) == uninterrupted


def test_a_finished_run_stays_as_it_is(uninterrupted, tmp_path, capsys, monkeypatch):
    assert run(tmp_path) == 0
    (tmp_path / "run" / results.VARIABLES).unlink()  # as if it was killed just before it wrote them
    capsys.readouterr()
    monkeypatch.setattr("train.training.loop.compile_programs", lambda *_: pytest.fail("there is nothing to compile"))
    assert main(["--resume", str(tmp_path / "run")]) == 0
    said = f"{tmp_path / 'run'} is finished: nothing is left to train; its results are written again\n"
    assert said in capsys.readouterr().out
    assert outcome(tmp_path / "run") == uninterrupted


def test_with_a_constant_rate_a_run_can_go_on_for_longer(tmp_path):
    """Two epochs and then a third are the same as three."""
    constant = ["--schedule", "constant", "--patience", "9"]
    assert run(tmp_path / "a", *constant) == 0
    assert run(tmp_path / "b", *constant, "--epochs", "2") == 0
    assert main(["--resume", str(tmp_path / "b" / "run"), "--epochs", "3"]) == 0
    assert outcome(tmp_path / "b" / "run") == outcome(tmp_path / "a" / "run")
    assert config_file.read(tmp_path / "b" / "run" / "config.json").optimizer.epochs == 3


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A finished run that tests try to resume wrongly."""
    runs = tmp_path_factory.mktemp("stopped")
    assert run(runs, "--epochs", "1") == 0
    return runs / "run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "9"], "--batch-size cannot change when a run is resumed: it was 8, got 9"),
        (
            ["--epochs", "4"],
            "--epochs cannot change when a run is resumed (its schedule depends on it): it was 1.0",
        ),
        (["--seed", "4"], "--seed cannot change when a run is resumed: it was 0, got 4"),
        (["--norm-momentum", "0.5"], "--norm-momentum cannot change when a run is resumed: it was 0.9, got 0.5"),
        (["--name", "other"], "a resumed run stays in its folder, "),
        (["--overwrite"], "--resume continues a run and --overwrite replaces it: pass only one of them"),
        (["--preset", "default"], "--preset and --resume each set the starting values of all other options"),
    ],
)
def test_a_resumed_run_cannot_become_another(arguments, message, stopped, capsys):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert main(["--resume", str(stopped), *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_other_data_are_refused(stopped, capsys, monkeypatch):
    position = next((stopped / "checkpoints").iterdir()) / "position.json"
    monkeypatch.setattr("train.data.Dataset.card", None)
    assert main(["--resume", str(stopped)]) == 1
    assert "the data have changed since" in capsys.readouterr().err
    assert position.exists()


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert main(["--resume", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} is not the folder of a run: it has no config.json\n"


def test_only_damaged_checkpoints_are_an_error_with_a_way_out(tmp_path, capsys):
    assert run(tmp_path, "--epochs", "1") == 0
    for path in (tmp_path / "run").glob("checkpoints/*/position.json"):
        path.write_text("{}")
    capsys.readouterr()
    assert main(["--resume", str(tmp_path / "run")]) == 1
    errors = capsys.readouterr().err
    assert re.search(
        r"no checkpoint in .* is intact: nothing can be restored\. To start again: --overwrite --name", errors
    )


def test_two_processes_do_not_train_in_one_folder(stopped, capsys):
    with Writer(stopped).claim():
        assert main(["--resume", str(stopped)]) == 1
    assert "another process is training there" in capsys.readouterr().err


def test_runs_are_not_made_where_there_can_be_no_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file") == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'file' / 'run'} cannot be written: ")


def test_a_configuration_repeats_its_run(uninterrupted, tmp_path):
    assert run(tmp_path) == 0
    config = str(tmp_path / "run" / "config.json")
    assert main(["--config", config, "--name", "again"]) == 0
    assert outcome(tmp_path / "again") == uninterrupted
    assert main(["--name", "other", "--seed", "1", "--config", config]) == 0  # what is explicit wins
    assert outcome(tmp_path / "other")[3] != uninterrupted[3]


def record_of(epoch, accuracy):
    return Epoch(epoch, epoch, 1.0, 0.5, 1.0, accuracy, 1.0, 0.5, 1.0, 1.0)


def test_patience_counts_epochs_since_the_best():
    epochs = [record_of(i, accuracy) for i, accuracy in enumerate([0.5, 0.7, 0.6, 0.7], 1)]
    assert keeping.best(epochs) is epochs[1]
    assert not keeping.out_of_patience(epochs, None)
    assert not keeping.out_of_patience(epochs, 3)
    assert keeping.out_of_patience(epochs, 2)
    assert not keeping.out_of_patience([], 1)
    assert keeping.best([record_of(1, None)]) is None


def test_a_run_out_of_patience_stops_and_keeps_the_best_apart(tmp_path, capsys):
    """A rate that is far too small: no epoch is better than the first."""
    arguments = ["--learning-rate", "1e-9", "--patience", "2", "--epochs", "50", "--schedule", "constant"]
    assert run(tmp_path, *arguments, "--norm-average", "constant", "--norm-momentum", "1", "--tensorboard") == 0
    assert "stopped after epoch 3 of 50" in capsys.readouterr().out
    (best,) = (tmp_path / "run" / "best").iterdir()
    assert best.name == "step-000000012"
    position = json.loads((best / "position.json").read_text())["position"]
    assert Position(**position | {"reports": ()}).epoch == 2
    assert len(list((tmp_path / "run" / "tensorboard").glob("events.*"))) == 1
    assert main(["--resume", str(tmp_path / "run")]) == 0
    output = capsys.readouterr().out
    assert "stopped after epoch 3 of 50" in output
    assert "is finished: nothing is left to train" in output
    assert main(["evaluate", "run", "--runs-dir", str(tmp_path), "--checkpoint", "best"]) == 0
    assert "run, step 12\nvalidation accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--checkpoint-epochs", "2"], [24, 36]), (["--checkpoint-minutes", "0"], list(range(1, 37)))],
    ids=["epochs", "clock"],
)
def test_checkpoints_come_by_epochs_and_by_the_clock(arguments, expected, monkeypatch, tmp_path):
    kept = []
    save = checkpoint.save

    def record(parent, state, *rest):
        kept.append((parent.name, int(state.step)))
        return save(parent, state, *rest)

    monkeypatch.setattr(checkpoint, "save", record)
    assert run(tmp_path, *arguments) == 0
    steps = [step for name, step in kept if name == "checkpoints"]
    assert steps == expected
    assert sorted(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").iterdir()) == steps[-2:]


STAGES = (results.CONFIG, results.PROGRESS, results.VARIABLES, results.CURVES, results.CONFUSION, results.MISTAKES)


class Runs:
    """Starts runs in processes of their own, all with one cache."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}

    def start(self, *arguments):
        command = [sys.executable, "-m", "train", *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def begin(self, name):
        return self.start(*DIGITS, "--runs-dir", str(self.folder), "--name", name, "--overwrite")

    def go_on(self, name):
        """As a person would: by --resume if there is something to resume."""
        folder = self.folder / name
        return self.start("--resume", str(folder)) if (folder / results.CONFIG).exists() else self.begin(name)

    def times(self, process, name):
        """When a run came to the end of each stage of its life: seconds."""
        times = [time.monotonic()]
        for stage in STAGES:
            self.wait_for(process, self.folder / name / stage)
            times.append(time.monotonic())
        assert process.communicate() == (None, "")
        return np.array([*times, time.monotonic()])

    def wait_for(self, process, path):
        while not path.exists() and process.poll() is None:
            time.sleep(0.005)

    def kill(self, process, after, since=None):
        """Kills a process so many seconds after a file is there, or after its start; whether it was still there."""
        if since is not None:
            self.wait_for(process, since)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=after)
        process.kill()
        process.communicate()
        return process.returncode == -signal.SIGKILL


def phase(folder):
    """The point at which a run was killed, judged by the files that it left."""
    if not (folder / results.CONFIG).exists():
        return "before anything was written"
    if list(folder.glob(f"*/{checkpoint.TEMPORARY}*")):
        return "within the write of a checkpoint"
    if list(folder.glob(".*.part")):
        return "within the write of another file"
    if not (folder / results.PROGRESS).exists():
        return "before the first steps were done"
    if not (folder / results.VARIABLES).exists():
        return "while it trained"
    written = (results.CURVES, results.CONFUSION, results.MISTAKES, results.REPORT)
    return "after training, before " + next((name for name in written if not (folder / name).exists()), "the end")


def test_killed_runs_end_as_the_uninterrupted_one(tmp_path):
    """SIGKILL at random moments: one in each part of a run's life, from before its first import to its last picture.

    A moment is a time within a stage of the run, so that it falls there whatever else keeps the machine busy. Every
    third run is killed once more after it went on.
    """
    runs, draw = Runs(tmp_path), random.Random(KILLS)
    assert runs.begin("whole").communicate() == (None, "")
    expected = outcome(tmp_path / "whole")
    times = runs.times(runs.begin("again"), "again")  # its programs are compiled, as the killed ones find them
    assert outcome(tmp_path / "again") == expected
    life, killed = times[-1] - times[0], Counter()
    for i in range(KILLS):
        name, alive = f"killed{i}", True
        while alive:  # until a kill came before the end
            moment = times[0] + (i + draw.random()) / KILLS * life
            stage = int(np.searchsorted(times, moment, "right")) - 1
            since = tmp_path / name / STAGES[stage - 1] if stage else None
            alive = not runs.kill(runs.begin(name), moment - times[stage], since)
        killed[phase(tmp_path / name)] += 1
        if i % 3 == 2 and runs.kill(runs.go_on(name), draw.random() * life):
            killed[phase(tmp_path / name)] += 1
        last = runs.go_on(name)
        _, errors = last.communicate()
        errors = errors.replace(f"{tmp_path / name} has no checkpoint yet: it starts from the beginning\n", "")
        assert (last.returncode, errors) == (0, "")
        assert outcome(tmp_path / name) == expected
        assert (tmp_path / name / results.REPORT).exists()
        assert list((tmp_path / name).glob("*/.*")) == []
        shutil.rmtree(tmp_path / name)
    print(*(f"{count} {where}" for where, count in killed.most_common()), sep="\n")  # pytest -rP shows it
    assert killed.total() >= KILLS
