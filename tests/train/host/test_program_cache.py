"""Compiled programs in the cache: what is damaged is never used, and nobody hears of it."""

import os
import random
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest

from train.host import program_cache
from train.host.program_cache import DIGEST, FOLDER, SECONDS, kept, seal, verify

ROOT = Path(__file__).parents[3]
FLIPS = int(os.environ.get("JAXBN_FLIPS", "40"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of programs, in use; it holds three."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "jaxbn" / "programs"
    path.mkdir(parents=True)
    monkeypatch.setenv(FOLDER, str(path))
    for i in range(3):
        (path / f"jit_f-{i}-cache").write_bytes(random.Random(i).randbytes(300))
    seal()
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_sealed_programs_stay(folder):
    before = contents(folder)
    assert len(before) == 6
    seal()
    verify(folder)
    assert contents(folder) == before


def test_every_flipped_bit_removes_its_program_and_no_other(folder):
    whole, draw, removed = contents(folder), random.Random(0), Counter()
    for _ in range(FLIPS):
        name = draw.choice(sorted(whole))
        changed = bytearray(whole[name])
        bit = draw.randrange(8 * len(changed))
        changed[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(changed)
        verify(folder)
        program = name.removesuffix(DIGEST)
        assert contents(folder) == {n: c for n, c in whole.items() if n not in (program, program + DIGEST)}
        removed["digest" if name.endswith(DIGEST) else "program"] += 1
        for each in (program, program + DIGEST):
            (folder / each).write_bytes(whole[each])
    assert min(removed.values()) > FLIPS // 4


@pytest.mark.parametrize("damage", ["cut", "emptied", "unsealed", "swapped"])
def test_other_damage_removes_a_program(damage, folder):
    path, other = folder / "jit_f-0-cache", folder / "jit_f-1-cache"
    gone = {path.name}
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:100])
        case "emptied":
            path.write_bytes(b"")
        case "unsealed":
            path.with_name(path.name + DIGEST).unlink()
        case "swapped":
            content = path.read_bytes()
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
            gone.add(other.name)
    verify(folder)
    assert {path.name for path in folder.glob("*-cache")} == {f"jit_f-{i}-cache" for i in range(3)} - gone
    assert len(contents(folder)) == 2 * (3 - len(gone))  # their digests are gone, too


def test_the_oldest_go_where_there_are_too_many(folder, monkeypatch):
    for i in range(3):
        os.utime(folder / f"jit_f-{i}-cache", (i, i))
    monkeypatch.setattr(program_cache, "MOST_BYTES", 600)
    verify(folder)
    assert sorted(path.name for path in folder.glob("*-cache")) == ["jit_f-1-cache", "jit_f-2-cache"]


def test_a_folder_of_ones_own_is_left_alone(folder, tmp_path, monkeypatch):
    """As it is set by whoever starts the program: no digest is written or asked for."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "jit_g-cache").write_bytes(b"")
    monkeypatch.setenv(FOLDER, str(own))
    with kept():
        pass
    assert [path.name for path in own.iterdir()] == ["jit_g-cache"]
    assert len(contents(folder)) == 6


@pytest.mark.parametrize("place", ["a file", "no place"])
def test_without_a_folder_nothing_is_kept(place, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    home = {"a file": tmp_path, "no place": tmp_path / "file"}[place]
    if place == "a file":
        (tmp_path / "jaxbn").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.delenv(FOLDER, raising=False)
    with kept():
        assert FOLDER not in os.environ


def test_jax_is_told_of_the_folder_and_its_warnings_of_it_are_not_heard(tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (FOLDER, SECONDS):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    with kept():
        assert os.environ[FOLDER] == str(tmp_path / "jaxbn" / "programs")
        warnings.warn("Error writing persistent compilation cache entry for 'jit_f': OSError: full", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(each.message) for each in recwarn] == ["something else"]


def train(cache, *arguments):
    """A run in a process of its own; what it said on stderr must be nothing."""
    command = [sys.executable, "-m", "train", "--dataset", "iris", "--epochs", "1", "--no-report", "--overwrite"]
    environment = {name: value for name, value in os.environ.items() if name not in (FOLDER, SECONDS)}
    finished = subprocess.run(
        [*command, "--runs-dir", str(cache.parent / "runs"), "--name", "run", *arguments],
        cwd=ROOT,
        env=environment | {"XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    return (cache.parent / "runs" / "run" / "variables.npz").read_bytes()


def test_runs_with_garbled_programs_and_with_no_place_for_them_are_the_same(tmp_path):
    """Torn entries are what a kill leaves; JAX itself would warn of them at every start."""
    programs = tmp_path / "cache" / "jaxbn" / "programs"
    expected = train(tmp_path / "cache")
    names = {path.name for path in programs.iterdir()}
    assert sum(name.startswith("jit_train_steps") for name in names) == 2  # with its digest
    for path in programs.glob("*-cache"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert train(tmp_path / "cache") == expected
    assert {path.name for path in programs.iterdir()} == names  # compiled anew, and kept
    verify(programs)
    assert {path.name for path in programs.iterdir()} == names
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("no folder")
    assert train(tmp_path / "cache") == expected
