"""Without the extra's packages there is one line that says what to install."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from train.commands.cli import main
from train.host import packages

ROOT = Path(__file__).parents[3]


def test_the_packages_are_those_of_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"][packages.EXTRA]]
    names = {re.match(r"[\w-]+", each).group() for each in declared}  # pyright: ignore[reportOptionalMemberAccess]
    assert set((packages.NEEDED | packages.SOMETIMES).values()) == names
    assert packages.missing() == []


def test_a_plain_jaxbn_says_what_to_install(tmp_path):
    """A Python that finds this code, JAX, Flax and NumPy, and nothing of the extra."""
    hidden = sorted(name.partition(".")[0] for name in packages.NEEDED if name not in ("jax", "flax", "numpy"))
    (tmp_path / "sitecustomize.py").write_text(
        f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_others(name, path=None, target=None):
    return None if name.partition(".")[0] in {hidden} else find(name, path, target)
PathFinder.find_spec = find_others
""",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for arguments in ([], ["--help"], ["predict", "--help"]):
        command = [sys.executable, "-m", "train", *arguments]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (finished.returncode, finished.stdout) == (1, "")
        assert finished.stderr == (
            "error: tyro, rich, optax, orbax-checkpoint, matplotlib, filelock and jinja2 are not installed: "
            "run pip install -e '.[train]' in this checkout\n"
        )


@pytest.mark.parametrize(
    ("module", "package"), [("tensorboardX", "tensorboardX"), ("sklearn.datasets", "scikit-learn"), ("PIL", "pillow")]
)
def test_what_a_command_needs_later_is_named_there(module, package, monkeypatch, capsys):
    def fail(_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    monkeypatch.setattr("train.commands.train.train", fail)
    assert main([]) == 1
    assert capsys.readouterr().err.startswith(f"error: {package} is not installed: run pip install ")


@pytest.mark.parametrize("module", ["nobody_knows", "sklearn.nothing", None])
def test_other_failed_imports_are_not_hidden(module, monkeypatch):
    """Also of a part of a package that is installed: it is damaged."""

    def fail(_):
        raise ModuleNotFoundError("what happened", name=module)

    monkeypatch.setattr("train.commands.train.train", fail)
    with pytest.raises(ModuleNotFoundError, match="what happened"):
        main([])
