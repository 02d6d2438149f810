"""The wheel contains jaxbn alone; the training program and everything else belong to a checkout."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("hatchling", reason="the package that builds the wheel is not installed: pip install hatchling")


def run(*arguments, cwd):
    finished = subprocess.run([str(a) for a in arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from the source distribution, as an installer does when there is no wheel."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / source.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=unpacked)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_jaxbn_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jaxbn").rglob("*.py")}
    assert modules | {"jaxbn/py.typed"} == {name for name in names if ".dist-info/" not in name}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_an_empty_environment_gets_jaxbn_and_no_train(wheel, tmp_path):
    """The dependencies of jaxbn come from the environment of the tests."""
    pytest.importorskip("pip", reason="pip is not installed")
    venv.create(tmp_path / "venv", symlinks=True)
    (python,) = tmp_path.glob("venv/bin/python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (packages,) = tmp_path.glob("venv/lib/*/site-packages")
    (packages / "dependencies.pth").write_text(str(Path(jax.__file__).parents[1]))
    found = run(python, "-I", "-c", "import jaxbn; print(jaxbn.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(packages)
    refused = subprocess.run([python, "-I", "-c", "import train"], cwd=tmp_path, capture_output=True, check=False)
    assert b"No module named 'train'" in refused.stderr
