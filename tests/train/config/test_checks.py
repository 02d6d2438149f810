"""Options that cannot be are refused before anything is loaded or written."""

import pytest

from train.commands.cli import main
from train.config.checks import RANGES, check
from train.config.sections import Config, RunConfig
from train.host.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rate", "-1"], "--learning-rate must be positive and finite; got -1.0"),
        (
            ["--batch-size", "1"],
            "--batch-size must be at least 2: batch normalization needs more than one value; got 1",
        ),
        (["--batch-size", "64", "--norm-ghost-batch", "5"], "--norm-ghost-batch must divide the batch of 64; got 5"),
        (["--network", "mlp", "--channels", "8"], "--channels applies to a cnn, and this is an mlp: leave it out"),
        (
            ["--network", "cnn", "--hidden", "8", "8"],
            "--hidden of a cnn must be one number, as in --hidden 256; got 8 8",
        ),
        (["--norm-momentum", "2"], "momentum must be in [0, 1], the weight"),
        (["--norm-renorm", "constant", "--norm-r-max", "0.5"], "r_max must be at least 1; got 0.5"),
        (["--patience", "2"], "--patience needs the validation accuracy"),
        (["--devices", "99"], "--devices must be from 1 to 8"),
    ],
)
def test_nothing_is_loaded_for_options_that_cannot_be(arguments, message, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("train.commands.train.load", pytest.fail)
    assert main(["--dataset", "cifar10", "--runs-dir", str(tmp_path / "runs"), *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_the_program_is_not_taken_for_one_of_the_user(monkeypatch):
    def fail(*_, **options):
        raise ValueError("a mistake in the program")

    monkeypatch.setattr("train.commands.train.load", fail)
    with pytest.raises(ValueError, match="a mistake in the program"):
        main(["--dataset", "iris"])


def test_every_range_is_of_an_option():
    config = Config()
    sections = (config.data, config.model, config.norm, config.optimizer, config.run)
    assert set(RANGES) <= {name for section in sections for name in vars(section)}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a/"])
def test_a_name_is_one_folder(name):
    with pytest.raises(UsageError, match=f"--name must be the name of a folder, without separators; got {name!r}"):
        check(Config(run=RunConfig(name=name)))
