"""Output in an encoding that lacks some characters: they are replaced, and nothing else is different."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_run
from PIL import Image

from train.commands.cli import main
from train.config.presets import RECORDS
from train.host import encoding

ROOT = Path(__file__).parents[3]
ENCODINGS = ["cp1252", "latin-1", "ascii", "utf-8"]
NAME = "naïve-模型-№5…"


class Output(io.TextIOWrapper):
    """A stream of an encoding, as redirected output is."""

    def __init__(self, name):
        super().__init__(io.BytesIO(), encoding=name)

    @property
    def said(self):
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode(self.encoding)


def said(name, *arguments):
    """The exit code of a command, and what it writes to streams of an encoding."""
    output, errors = Output(name), Output(name)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(arguments)
    return code, output.said, errors.said


def shown(text, name):
    """The text as an encoding can have it."""
    stream = Output(name)
    encoding.tolerate(stream)
    stream.write(text)
    return stream.said


def test_what_is_lacking_becomes_what_is_like_it():
    assert shown("3–4 × 2 … é ⁵ ± “x” ━│╭ ⠋ ℓ₂ 模 😀", "ascii") == '3-4 x 2 ... e 5 +/- "x" -|+ * l2 ? ?'
    assert shown("3–4 × é 模", "cp1252") == "3–4 × é ?"
    assert shown("3–4 × é 模 😀", "utf-8") == "3–4 × é 模 😀"


def test_names_of_other_bytes_come_out_as_they_are():
    """A file's name need not be UTF-8 on Linux."""
    stream = Output("utf-8")
    encoding.tolerate(stream)
    stream.write(os.fsdecode(b"caf\xe9.png"))
    stream.flush()
    assert stream.buffer.getvalue() == b"caf\xe9.png"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_run_has_no_such_name(tmp_path, capsys):
    """TensorStore, which writes checkpoints, knows files by UTF-8 only."""
    name = os.fsdecode(b"caf\xe9")
    for arguments in (["--runs-dir", str(tmp_path / "runs"), "--name", name], ["--runs-dir", str(tmp_path / name)]):
        assert main(["--dataset", "iris", *arguments]) == 1
        assert "must be text in UTF-8; got " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_streams_that_are_no_files_stay_as_they_are():
    encoding.tolerate(io.StringIO())


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_run_of_any_name_trains(name, tmp_path):
    options = ["--dataset", "iris", "--epochs", "1", "--hidden", "4", "--no-report"]
    code, output, errors = said(name, *options, "--runs-dir", str(tmp_path), "--name", NAME)
    assert (code, errors) == (0, "")
    assert output.endswith(f"results in {tmp_path}/{shown(NAME, name)}\n")
    assert (tmp_path / NAME / "variables.npz").exists()
    code, output, errors = said(name, "evaluate", NAME, "--runs-dir", str(tmp_path))
    assert (code, errors) == (0, "")
    assert f"{shown(NAME, name)}, step " in output


@pytest.mark.parametrize("name", ENCODINGS)
def test_predict_prints_any_name(name, tmp_path):
    folder, path = small_run.write(tmp_path / NAME), tmp_path / f"{NAME}.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)).save(path)
    code, output, errors = said(name, "predict", str(folder), str(path), str(tmp_path / "другой.png"))
    assert code == 1
    assert output.startswith(f"{tmp_path}/{shown(NAME, name)}.png\t")
    assert f"error: there is no {tmp_path}/{shown('другой', name)}.png\n" in errors


@pytest.mark.parametrize("name", ENCODINGS)
def test_presets_are_listed(name):
    code, output, errors = said(name, "presets")
    assert (code, errors) == (0, "")
    accuracies = RECORDS["default"].accuracies
    assert f"{min(accuracies):.2f}{shown('–', name)}{max(accuracies):.2f}" in output
    assert "?" not in output


@pytest.mark.parametrize("arguments", [["--help"], ["--epoch", "3"], ["predict", "--help"]])
def test_help_and_the_parser_s_errors_are_printed(arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "train", *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert finished.returncode == (0 if "--help" in arguments else 2), finished.stderr
    assert b"Traceback" not in finished.stderr
    assert (finished.stdout + finished.stderr).isascii()
