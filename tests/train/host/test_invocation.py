"""The record of how a process was started."""

import datetime
import shutil
import subprocess
import sys

import pytest

from train.host import invocation


def test_the_command_line_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-m", "train", "--name", "a b"])
    assert invocation.command_line() == "python3 -m train --name 'a b'"


def test_the_time_has_seconds_and_its_offset():
    found = datetime.datetime.fromisoformat(invocation.now())
    assert found.tzinfo is not None
    assert found.microsecond == 0


def test_an_installed_package_has_no_commit(tmp_path):
    assert invocation.commit(tmp_path) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_the_commit_of_a_checkout(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "a")
    commit = git("rev-parse", "HEAD")[:12]
    assert invocation.commit(tmp_path) == commit
    (tmp_path / "file").write_text("2")
    assert invocation.commit(tmp_path) == f"{commit}, with local changes"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert invocation.commit(tmp_path) is None
