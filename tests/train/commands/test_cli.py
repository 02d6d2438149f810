"""The command line: what it says, what it leaves behind, and how it ends."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from train.commands import train
from train.commands.cli import main
from train.commands.train import default_name
from train.config import config_file
from train.config.datasets import DATASETS
from train.config.sections import Config, NormConfig, OptimizerConfig
from train.data import load
from train.host.errors import UsageError

ROOT = Path(__file__).parents[3]
BATCH = DATASETS["digits"].batch_size
NETWORK = ["conv1", "norm1", "conv2", "norm2", "dense", "norm3", "logits"]


def table(output):
    """The rows of the table of the network that have a name, without its head."""
    lines = output.partition("layer ")[2].splitlines()[1:]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines if re.match(r"[a-z]+\d*  ", line)]
    return {row[0]: row[1:] for row in rows if "epoch" not in row[0]}


def python(code, timeout=60):
    """Runs code in a new interpreter, where nothing has been imported yet."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )


def test_a_run_without_mnist_says_all_there_is_to_know(digits_run):
    assert (digits_run.code, digits_run.errors) == (0, "")
    output = digits_run.output
    assert "\x1b" not in output  # no colours or bars where nobody sees them
    lines = [line.strip() for line in output.splitlines()]
    assert any(re.fullmatch(r"device  .+, jax \d+\.\d+\.\d+.*", line) for line in lines)
    assert "dataset  digits (bundled with scikit-learn): 1,437 training and 360 test examples" in lines
    assert (
        "note  MNIST could not be prepared (there is no network here); using scikit-learn's digits instead: "
        "for MNIST, pass --data-dir DIR with its four IDX files"
    ) in lines
    assert f"training  2 epochs of {1437 // BATCH} steps of {BATCH}, seed 0" in lines
    assert f"dropped  the last {1437 % BATCH} examples of each shuffled epoch (an incomplete batch)" in lines

    rows = table(output)
    assert list(rows) == [*NETWORK, "total"]
    assert rows["conv1"] == ["Conv", "26×26×32", "288", "0"]
    assert rows["norm2"] == ["BatchNorm", "11×11×64", "128", "128"]
    assert rows["total"] == ["431,594", "704"]

    epochs = [line for line in lines if line.startswith("epoch ")]
    number, percent = r"[\d,]+(\.\d+)?", r"\d+\.\d\d%"
    for i, line in enumerate(epochs, 1):
        assert re.fullmatch(
            rf"epoch {i}/2  train loss {number} accuracy {percent}  test loss {number} accuracy {percent}  "
            rf"{number} images/s  {number} s",
            line,
        )
    assert len(epochs) == 2
    last = digits_run.metrics[-1]
    assert lines[-2].startswith(
        f"test accuracy {last['test_accuracy']:.2%} of digits ({round(360 * last['test_accuracy'])} of 360 right, "
        f"loss {last['test_loss']:.4f}) after {last['train_seconds']:.1f} s of training (and "
    )
    assert lines[-1] == f"results in {digits_run.folder}"


def test_the_files_of_a_run(digits_run):
    names = sorted(path.name for path in digits_run.folder.iterdir())
    pictures = ["confusion.png", "curves.png", "mistakes.png", "report.html"]
    assert names == sorted(
        [
            ".lock",
            "checkpoints",
            "config.json",
            "config.sha256",
            "initial.json",
            "invocations.jsonl",
            "metrics.jsonl",
            "progress.jsonl",
            "variables.npz",
            *pictures,
        ]
    )
    config = json.loads((digits_run.folder / "config.json").read_text(encoding="utf-8"))
    usual = json.loads(config_file.to_json(Config()))
    assert config == usual | {
        "data": usual["data"] | {"dataset": "digits"},
        "model": usual["model"] | {"channels": [32, 64], "deslant": "off", "crop": 0, "shift": 0},
        "optimizer": dataclasses.asdict(OptimizerConfig(epochs=2, batch_size=BATCH)),
        "run": usual["run"] | {"runs_dir": str(digits_run.folder.parent), "name": "run"},
    }
    metrics = digits_run.metrics
    assert [(record["epoch"], record["step"]) for record in metrics] == [(1, 1437 // BATCH), (2, 2 * (1437 // BATCH))]
    for record in metrics:
        assert record["dataset"] == "digits"
        assert "no network here" in record["note"]
        assert float.is_integer(round(record["test_accuracy"] * 360, 9))
    with np.load(digits_run.folder / "variables.npz", allow_pickle=False) as stored:
        shapes = {name: stored[name].shape for name in stored}
    assert shapes == {
        "params/conv1/kernel": (3, 3, 1, 32),
        "params/norm1/scale": (32,),
        "params/norm1/bias": (32,),
        "params/conv2/kernel": (3, 3, 32, 64),
        "params/norm2/scale": (64,),
        "params/norm2/bias": (64,),
        "params/dense/kernel": (1600, 256),
        "params/norm3/scale": (256,),
        "params/norm3/bias": (256,),
        "params/logits/kernel": (256, 10),
        "params/logits/bias": (10,),
        "batch_stats/norm1/mean": (32,),
        "batch_stats/norm1/var": (32,),
        "batch_stats/norm2/mean": (64,),
        "batch_stats/norm2/var": (64,),
        "batch_stats/norm3/mean": (256,),
        "batch_stats/norm3/var": (256,),
    }


def test_a_run_on_iris(iris_run):
    assert (iris_run.code, iris_run.errors) == (0, "")
    assert table(iris_run.output)["total"] == ["267,779", "2,048"]
    assert "\n     note" not in iris_run.output
    assert [record["epoch"] for record in iris_run.metrics] == list(range(1, int(DATASETS["iris"].epochs) + 1))
    assert 10 <= iris_run.output.count("\nepoch ") <= 20


def test_the_variables_of_a_run_give_its_test_metrics(iris_run):
    """Evaluation from the file alone, in NumPy: dense, norm, relu, twice, and the logits."""
    with np.load(iris_run.folder / "variables.npz", allow_pickle=False) as stored:
        variables = {name: stored[name].astype(np.float64) for name in stored}
    params, stats = (lambda name: variables[f"params/{name}"]), (lambda name: variables[f"batch_stats/{name}"])
    iris = load("iris")
    x = iris.test_inputs.astype(np.float64)
    for i in (1, 2):
        x = x @ params(f"dense{i}/kernel")
        x = (x - stats(f"norm{i}/mean")) / np.sqrt(stats(f"norm{i}/var") + NormConfig().norm_epsilon)
        x = np.maximum(x * params(f"norm{i}/scale") + params(f"norm{i}/bias"), 0)
    logits = x @ params("logits/kernel") + params("logits/bias")
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(30), iris.test_labels]
    last = iris_run.metrics[-1]
    assert last["test_accuracy"] == np.mean(logits.argmax(1) == iris.test_labels)
    assert last["test_loss"] == pytest.approx(losses.mean(), rel=1e-3, abs=1e-6)


def test_mnist_without_a_network_is_an_error_with_a_way_out(no_mnist, capsys, tmp_path):
    assert main(["--dataset", "mnist", "--runs-dir", str(tmp_path / "runs")]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: MNIST could not be prepared: there is no network here. Pass --data-dir DIR")
    assert "--dataset digits" in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "121"], "error: --batch-size must be at most 120, the training examples of iris"),
        (["--epochs", "0"], "error: --epochs must be positive and finite; got 0.0"),
        (["--data-dir", "files"], "error: iris is bundled with scikit-learn"),
        (["--norm-momentum", "2"], "error: momentum must be in [0, 1]"),
        (["--checkpoint-minutes", "-1"], "error: --checkpoint-minutes must be at least 0; got -1"),
        (["--checkpoint-epochs", "0"], "error: --checkpoint-epochs must be at least 1; got 0"),
        (["--keep-checkpoints", "0"], "error: --keep-checkpoints must be at least 1; got 0"),
        (["--patience", "0"], "error: --patience must be at least 1; got 0"),
        (["--patience", "1"], "error: --patience needs the validation accuracy: hold out examples"),
        (["--channels", "8"], "error: --channels applies to a cnn, and this is an mlp"),
        (["--resume", "nothing"], "error: there is no run nothing, neither as a folder nor in "),
        (["--config", "nothing.json"], "error: there is no nothing.json"),
        (["--config", "a", "--preset", "default"], "error: --preset and --config each set the starting values"),
    ],
)
def test_a_mistake_leaves_no_folder(arguments, message, capsys, tmp_path):
    assert main(["--dataset", "iris", "--runs-dir", str(tmp_path / "runs"), *arguments]) == 1
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "runs").exists()


def test_an_earlier_run_is_not_touched(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert main(["--dataset", "iris", "--runs-dir", str(tmp_path), "--name", "mine"]) == 1
    assert "mine contains an earlier run; pass another --name, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine" / "config.json").read_text() == "{}"


@pytest.mark.parametrize("error", [OSError, UsageError, FloatingPointError])
def test_errors_that_are_for_people_are_one_line_and_code_1(error, monkeypatch, capsys):
    def fail(_):
        raise error("what happened, and what to do")

    monkeypatch.setattr(train, "train", fail)
    assert main([]) == 1
    assert capsys.readouterr() == ("", "error: what happened, and what to do\n")


def test_other_errors_are_not_hidden(monkeypatch):
    def fail(_):
        raise ValueError("a mistake in the program")

    monkeypatch.setattr(train, "train", fail)
    with pytest.raises(ValueError, match="a mistake in the program"):
        main([])


def test_an_interruption_has_its_own_code(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", interrupt)
    assert main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_run_is_named_after_dataset_and_time(monkeypatch):
    monkeypatch.setattr(train.time, "strftime", lambda form: f"<{form}>")
    assert default_name("iris") == "iris-<%Y%m%d-%H%M%S>"


def test_help_comes_without_importing_what_it_does_not_need():
    slow = [
        "jax",
        "flax",
        "optax",
        "orbax",
        "tensorboardX",
        "rich.progress",
        "matplotlib",
        "sklearn",
        "tensorflow_datasets",
        "PIL",
    ]
    finished = python(f"""
import runpy, sys
sys.argv = ["train", "--help"]
try:
    runpy.run_module("train", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    print("code", stop.code)
print("imported", [name for name in {slow} if name in sys.modules])
""")
    assert finished.stderr == ""
    assert finished.stdout.endswith("code 0\nimported []\n")
    assert "--learning-rate" in finished.stdout


def test_jaxbn_alone_imports_neither_flax_nor_the_training():
    finished = python("""
import sys
import jaxbn
print([name for name in ("flax", "optax", "train", "matplotlib", "sklearn") if name in sys.modules])
""")
    assert (finished.stdout, finished.stderr) == ("[]\n", "")


def test_the_module_hands_on_the_code():
    finished = python("""
import runpy, sys
sys.argv = ["train", "--dataset", "iris", "--epochs", "0"]
runpy.run_module("train", run_name="__main__", alter_sys=True)
""")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.strip() == "error: --epochs must be positive and finite; got 0.0"


def test_options_are_checked_before_an_earlier_run_goes(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    arguments = [
        "--dataset",
        "iris",
        "--runs-dir",
        str(tmp_path),
        "--name",
        "mine",
        "--overwrite",
        "--norm-momentum",
        "2",
    ]
    assert main(arguments) == 1
    assert "momentum must be in [0, 1]" in capsys.readouterr().err
    assert (tmp_path / "mine" / "config.json").read_text() == "{}"


def test_divergence_in_the_last_step_is_noticed(capsys, tmp_path):
    arguments = ["--dataset", "iris", "--runs-dir", str(tmp_path), "--name", "far", "--epochs", "1"]
    assert main([*arguments, "--batch-size", "64", "--learning-rate", "1e30"]) == 1
    assert "loss became" in capsys.readouterr().err
    assert not (tmp_path / "far" / "metrics.jsonl").exists()


def test_names_are_printed_as_they_are(capsys, tmp_path):
    assert main(["--dataset", "iris", "--runs-dir", str(tmp_path), "--name", "m[b]x:smile:", "--epochs", "1"]) == 0
    assert "m[b]x:smile:" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["-u"], []])
def test_a_reader_that_goes_away_is_no_error(flags):
    """As in `python -m train presets | head -1`."""
    command = [sys.executable, *flags, "-m", "train", "presets"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, b"")
