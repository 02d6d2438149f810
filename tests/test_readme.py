"""Everything that README.md and docs/ tell people to run: all Python blocks, and all commands up to their options.

Blocks of one section (from one heading to the next) share their names. A new section starts afresh, so a reader can
begin at any heading.
"""

import ast
import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

from train.commands.cli import main, parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
OPTIONAL = {"equinox", "haiku", "keras", "safetensors", "torch"}  # blocks that import a missing one are skipped
SHELLS = ("bash", "console", "sh", "shell")


class Block(NamedTuple):
    """A fenced block of code."""

    page: Path
    section: int  # the line of the heading above it
    line: int  # of its first line of code
    language: str
    code: str


class Command(NamedTuple):
    """A command of a shell block, in words."""

    place: str
    words: tuple[str, ...]


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    section, start, language, fence, lines = 0, 0, "", "", []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r" *(`{3,}|~{3,}) *([\w-]*)", line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2]:
                yield Block(page, section, start, language, textwrap.dedent("\n".join(lines)) + "\n")
                fence = ""
            else:
                lines.append(line)
        elif mark:
            fence, language, start, lines = mark[1], mark[2].lower(), number + 1, []
        elif re.match(r"#+ ", line):
            section = number
    assert not fence, f"{page.name}: the block that begins in line {start} has no end"


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a shell block (in a console, only those behind a prompt), with pipelines and lists split."""
    offset, lines = 0, block.code.replace("\\\n", " \0").splitlines()
    for line in lines:
        place = f"{block.page.name}:{block.line + offset}"
        offset += 1 + line.count("\0")
        text = line.replace("\0", " ").strip()
        if block.language == "console" and not text.startswith("$ "):
            continue
        lexer = shlex.shlex(text.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for separator, words in groupby(lexer, key=lambda word: set(word) <= set("|&;<>()")):
            command = list(words)
            while command and re.match(r"\w+=", command[0]):
                command.pop(0)
            if command and not separator:
                yield Command(place, tuple(command))


def imports_of(blocks: list[Block]) -> set[str]:
    """The top-level modules that blocks import."""
    statements = [node for block in blocks for node in ast.walk(ast.parse(block.code))]
    names = [alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in statements if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SECTIONS = [list(blocks) for _, blocks in groupby(PYTHON, key=lambda block: (block.page, block.section))]
COMMANDS = [command for block in BLOCKS if block.language in SHELLS for command in commands_of(block)]


def module_and_arguments(words: tuple[str, ...]) -> tuple[str, list[str]] | None:
    """The module and the arguments of `python -m module arguments`; None for other commands."""
    if re.fullmatch(r"(.*/)?python[\d.]*", words[0]) and len(words) > 2 and words[1] == "-m":
        return words[2], list(words[3:])
    return None


def training_arguments(words: tuple[str, ...]) -> list[str] | None:
    """The arguments that `python -m train` gets, directly or from make; None for other commands."""
    if words[0] == "make" and "train" in words:
        given = dict(word.split("=", 1) for word in words if "=" in word)
        return shlex.split(given.get("ARGS", ""))
    module, arguments = module_and_arguments(words) or ("", [])
    return arguments if module == "train" else None


TRAININGS = [
    (command.place, arguments) for command in COMMANDS if (arguments := training_arguments(command.words)) is not None
]


def test_the_readme_has_something_to_run():
    assert any(block.page.name == "README.md" for block in PYTHON), "README.md has no Python block"
    assert any(place.startswith("README.md") for place, _ in TRAININGS), "README.md does not say how to train"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: f"{section[0].page.name}:{section[0].line}")
def test_python_blocks_run(section, tmp_path, monkeypatch):
    for name in sorted(OPTIONAL & imports_of(section)):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    module = types.ModuleType("section")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        for block in section:
            code = "\n" * (block.line - 1) + block.code  # so that a traceback names the line of the page
            exec(compile(code, str(block.page), "exec"), module.__dict__)


@pytest.mark.parametrize(("place", "arguments"), TRAININGS, ids=[place for place, _ in TRAININGS])
def test_the_training_takes_the_options(place, arguments):
    if "--help" in arguments:
        assert main(arguments) == 0
    else:
        parse(arguments)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.place)
def test_commands_name_targets_and_modules_that_exist(command):
    words = command.words
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word and not word.startswith("-")} <= set(targets)
    module, _ = module_and_arguments(words) or ("", [])
    if module and (ROOT / module.partition(".")[0]).is_dir():
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"there is no module {module}"
    elif module:
        assert importlib.util.find_spec(module), f"there is no module {module}"


def test_a_training_runs_as_written(tmp_path):
    """Run the first training command that needs no files, for one epoch, on iris unless it names a small dataset."""
    plain = [arguments for _, arguments in TRAININGS if not {"--data-dir", "--help", "-h"} & set(arguments)]
    assert plain, "no command trains without files"
    small = [arguments for arguments in plain if {"iris", "digits"} & set(arguments)]
    arguments = small[0] if small else [*plain[0], "--dataset", "iris"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    finished = subprocess.run(
        [sys.executable, "-m", "train", *arguments, "--epochs", "1", "--runs-dir", "runs"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} >= {"config.json", "metrics.jsonl", "variables.npz", "curves.png"}
    assert "test accuracy" in finished.stdout


def text_of(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """The anchors that code hosts and the site give to the headings of a page."""
    titles = re.findall(r"^#+ +(.*)$", text_of(page), re.MULTILINE)
    shown = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower() for title in titles]
    slugs = [re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in shown]
    return {slug if (seen := slugs[:i].count(slug)) == 0 else f"{slug}-{seen}" for i, slug in enumerate(slugs)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        path = page.parent / place if place else page
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            broken.append(target)
    assert broken == []


def test_anchors_are_those_of_code_hosts(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# In `jit`, A_b: it's so!\n## [Link](x.md) & more\n## Twice\n## Twice\n```\n# no heading\n```\n")
    assert anchors_of(page) == {"in-jit-a_b-its-so", "link--more", "twice", "twice-1"}
