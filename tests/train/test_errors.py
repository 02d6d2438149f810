"""docs/errors.md lists mistakes with their error messages; every row is run and must give its message.

After a change of messages: JAXBN_WRITE=1 python -m pytest -n 0 tests/train/test_errors.py
"""

import contextlib
import io
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from bad_inputs import CASES, Case, furnish

from train.commands.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
WRITE = bool(os.environ.get("JAXBN_WRITE"))
HEAD = """# Error messages

No mistake of a user ends in a traceback. The exit code is 1, or 2 for unknown options and values; a run that was told
to stop ends with 130 (Ctrl-C) or 143 (SIGTERM). Nothing is lost: a command that fails leaves folders unchanged.

A test runs every row (`tests/train/test_errors.py`) in a folder with two runs, `runs/a` of images and `runs/flowers` of
iris, a small MNIST in `data`, and an image `digit.png`. The first column names the mistake. (The test simulates a full
disk by a limit on the size of files; hence the system's words "File too large".)
"""
IN_PYTHON = "## In Python"  # the part of tests/jaxbn/test_mistakes.py
written: dict[Case, str] = {}


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("furnished")
    furnish(folder)
    return folder


@pytest.fixture
def here(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the furnished folder, as the current one; it is open to whoever root becomes."""
    folder = tmp_path / "here"
    shutil.copytree(furnished, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    monkeypatch.chdir(folder)
    return folder


@contextlib.contextmanager
def heard() -> Iterator[io.StringIO]:
    """A context that collects stderr, including the log of this program."""
    errors = io.StringIO()
    handler = logging.StreamHandler(errors)
    logging.getLogger("train").addHandler(handler)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            yield errors
    finally:
        logging.getLogger("train").removeHandler(handler)


def run(case: Case) -> tuple[int, str]:
    """Run a case and return its exit code and its message."""
    if case.environment:
        command = [sys.executable, "-m", "train", *shlex.split(case.command)]
        environment = (
            os.environ | dict(case.environment) | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(Path.cwd().parent)}
        )
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
        return finished.returncode, finished.stderr
    with heard() as errors, case.around():
        code = main(shlex.split(case.command))
    return code, errors.getvalue()


def jaxs_own(text: str) -> str:
    """The text without JAX's version and words, where they are not those of the JAX that the page was made with."""
    return text if jax.__version__.startswith("0.10.") else re.sub(r"jax [\d.]+ |\(.*\)", "", text)


def described() -> dict[tuple[str, str, str], str]:
    """The messages on the page, by section, problem and command."""
    rows, section = {}, ""
    for line in PAGE.read_text(encoding="utf-8").partition(IN_PYTHON)[0].splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("| ") and "`" in line:
            fault, command, said = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            rows[section, fault, command.strip("`")] = said.replace("<br>", "\n").replace("\\|", "|")
    return rows


def page(said: dict[Case, str]) -> str:
    lines = [HEAD]
    for section in dict.fromkeys(case.section for case in said):
        lines += [f"## {section}", "", "| problem | command | message |", "| --- | --- | --- |"]
        for case, message in said.items():
            if case.section == section:
                cell = message.replace("|", "\\|").replace("\n", "<br>")
                lines.append(f"| {case.fault} | `{case.typed}` | {cell} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.fault}: {case.command}")
def test_what_is_said(case: Case, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "300")
    case.prepare()
    before = sorted(path for path in here.rglob("*"))
    code, said = run(case)
    assert code == case.code
    assert "Traceback" not in said
    assert str(here) not in said  # what is relative stays so
    message = said.strip()
    assert message
    if code in (1, 2):
        assert message.splitlines()[-1].startswith("error: ")
        if "--name b" not in case.command:
            assert sorted(path for path in here.rglob("*") if path.name not in ("poster.png", ".lock")) == before
    written[case] = message
    if not WRITE:
        assert jaxs_own(message) == jaxs_own(described()[case.section, case.fault, case.typed])


def test_the_page_has_these_rows_and_no_others():
    if WRITE:
        others = "".join(PAGE.read_text(encoding="utf-8").partition(IN_PYTHON)[1:])
        PAGE.write_text(page({case: written[case] for case in CASES}) + "\n" + others, encoding="utf-8")
    assert list(described()) == [(case.section, case.fault, case.typed) for case in CASES]
    assert len(CASES) >= 30
