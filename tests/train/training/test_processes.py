"""Processes that train together, over the local network: as one process does, also after one of them is killed."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from closeness import assert_close

from train.config.sections import DeviceConfig
from train.host.errors import UsageError
from train.training import processes

ROOT = Path(__file__).parents[3]
TIMEOUT = 5  # seconds, of --process-timeout
TAKEN = ("address already in use", "Address already in use", "Failed to bind")
DIGITS = shlex.split("--dataset digits --channels 4 --hidden 8 --no-norm-hidden --epochs 1 --batch-size 96 --no-report")
IRIS = shlex.split("--dataset iris --hidden 8 --epochs 20 --checkpoint-epochs 2 --no-report")


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts processes that train together, each with two devices, on a port that is free at this moment."""
    cache = tmp_path_factory.mktemp("cache")
    surroundings = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    surroundings |= {"JAX_NUM_CPU_DEVICES": "2", "XDG_CACHE_HOME": str(cache), "COLUMNS": "100"}
    running = []

    def run(*arguments, own=((), ())):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        together = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--num-processes", str(len(own))]
        together += ["--process-timeout", str(TIMEOUT)]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "train", *arguments, *together, "--process-id", str(number), *options],
                cwd=ROOT,
                env=surroundings,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number, options in enumerate(own)
        ]
        running.extend(started)
        return started

    yield run
    for process in running:
        process.kill()
        process.communicate()


def finish(started):
    """Waits for all, which are to end within five minutes on a machine that is busy with much else."""
    return [Ended(process.wait(300), *process.communicate()) for process in started]


@pytest.fixture(scope="module")
def run(start):
    """Runs processes to their end; again where another program took the port before process 0 did."""

    def train(*arguments, own=((), ())):
        ended = finish(start(*arguments, own=own))
        for _ in range(2):
            if any(text in each.errors for text in TAKEN for each in ended):
                ended = finish(start(*arguments, own=own))
        return ended

    return train


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def outcome(folder):
    """All that two runs of one layout have in common."""
    clock = {"images_per_second", "train_seconds", "crc32"}  # the checksum is of them too
    values = [{name: value for name, value in record.items() if name not in clock} for record in records(folder)]
    return values, (folder / "variables.npz").read_bytes()


def test_two_processes_train_as_one_does_and_one_of_them_writes(run, command, tmp_path):
    first, second = run(*DIGITS, "--runs-dir", str(tmp_path), "--name", "two", own=((), ("--runs-dir", "/nowhere")))
    assert (first.code, second.code) == (0, 0), (first.errors, second.errors)
    assert "4 devices in 2 processes (cpu), 24 of a batch on each" in first.output
    quiet = [line for line in second.output.splitlines() if "Gloo" not in line and "peer ranks" not in line]
    assert (quiet, second.errors) == ([], "")
    one = command(*DIGITS)
    for record, expected in zip(records(tmp_path / "two"), one.metrics, strict=True):
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            assert_close(record[name], expected[name], condition=50, message=name)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in one.folder.iterdir()}
    assert len((tmp_path / "two" / "progress.jsonl").read_text().splitlines()) == 14


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    """Two processes that train to the end."""
    runs = tmp_path_factory.mktemp("whole")
    ended = run(*IRIS, "--runs-dir", str(runs), "--name", "run")
    assert [each.code for each in ended] == [0, 0], ended
    return outcome(runs / "run")


def started_well(start, folder, *arguments):
    """Processes whose run in a folder has come to its 4th epoch."""
    for _ in range(3):
        started = start(*arguments, "--overwrite")
        while all(process.poll() is None for process in started):
            if (folder / "metrics.jsonl").exists() and len(records(folder)) >= 4:
                return started
            time.sleep(0.02)
        assert any(text in each.errors for text in TAKEN for each in finish(started))
    raise AssertionError("no port was free")


def kill(started, number):
    """Kills one; the exit code of the other, and the seconds until it has stopped."""
    started[number].kill()
    began = time.monotonic()
    return started[1 - number].wait(4 * TIMEOUT), time.monotonic() - began


def test_when_one_is_killed_the_others_stop_and_the_run_goes_on(start, run, uninterrupted, tmp_path):
    arguments = [*IRIS, "--runs-dir", str(tmp_path), "--name", "run"]
    code, seconds = kill(started_well(start, tmp_path / "run", *arguments), 1)
    assert code != 0
    assert seconds < 2 * TIMEOUT
    ended = run(*arguments, "--resume", str(tmp_path / "run"))
    assert [each.code for each in ended] == [0, 0], ended
    assert outcome(tmp_path / "run") == uninterrupted


def test_when_the_first_is_killed_the_others_stop_too(start, tmp_path):
    code, seconds = kill(started_well(start, tmp_path / "run", *IRIS, "--runs-dir", str(tmp_path), "--name", "run"), 0)
    assert code != 0
    assert seconds < 2 * TIMEOUT


def test_a_signal_to_one_stops_all_and_the_run_goes_on(start, run, uninterrupted, tmp_path):
    started = started_well(start, tmp_path / "run", *IRIS, "--runs-dir", str(tmp_path), "--name", "run")
    started[1].send_signal(signal.SIGTERM)
    first, second = finish(started)
    assert (first.code, second.code) == (143, 143)
    assert first.errors.startswith("stopped and saved at step ")
    assert second.errors == ""
    ended = run("--resume", str(tmp_path / "run"))
    assert [each.code for each in ended] == [0, 0], ended
    assert outcome(tmp_path / "run") == uninterrupted


def test_what_one_cannot_do_none_does(run, tmp_path):
    """A folder that only process 0 finds in its way; then options that differ."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    first, second = run(*IRIS, "--runs-dir", str(tmp_path), "--name", "run")
    message = f"{tmp_path / 'run'} contains thesis.tex, which no run writes; pass another --name\n"
    assert (first.code, first.errors) == (1, f"error: {message}")
    assert (second.code, second.errors) == (1, f"error: process 0 failed, and the others stop with it: {message}")
    first, second = run(*IRIS, "--runs-dir", str(tmp_path), "--name", "other", own=((), ("--seed", "1")))
    assert first.code == second.code == 1
    message = "error: the options or the data of process 1 are not those of process 0: start all with the same\n"
    assert first.errors == second.errors == message
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DeviceConfig(process_id=0), "--process-id is for several processes: pass --distributed, too"),
        (DeviceConfig(coordinator="a:1"), "--coordinator is for several processes: pass --distributed, too"),
        (DeviceConfig(num_processes=2), "--num-processes is for several processes: pass --distributed, too"),
        (DeviceConfig(distributed=True, process_timeout=0), "--process-timeout must be at least 1 second; got 0"),
    ],
)
def test_options_of_several_processes_are_checked(options, message):
    with pytest.raises(UsageError, match=f"^{message}$"), processes.connected(options):
        raise AssertionError("nothing runs")


def test_one_process_needs_nobody():
    with processes.connected(DeviceConfig()), processes.together():
        assert processes.first()
        assert not processes.several()
        assert processes.exchange("note") == ["note"]
        assert processes.greatest(15) == 15
        processes.agree("all", pytest.fail)
    with pytest.raises(OSError, match="no space"), processes.together():
        raise OSError("no space")
