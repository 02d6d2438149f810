"""The options of the command line: what they become, and what is said to those that are none."""

import dataclasses
import re

import pytest

from train.cli import main, parse
from train.config import PRESETS, Config, DataConfig, NormConfig, OptimizerConfig, RunConfig

SECTIONS = (DataConfig, NormConfig, OptimizerConfig, RunConfig)


def refused(arguments, capsys):
    """What is said to arguments that are refused while they are parsed."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    return errors


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("--epoch", "--epochs"), ("--lerning-rate", "--learning-rate"), ("--norm-momentun", "--norm-momentum")],
)
def test_a_mistyped_option_is_answered_with_the_nearest(typed, meant, capsys):
    errors = refused([typed, "3"], capsys)
    assert f"Unrecognized options: {typed}" in errors
    assert re.search(rf"Perhaps you meant:[^-]*{meant}\b", errors)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--preset", "keras"], "mnist-cnn-keras"),
        (["--dataset", "cifar"], "digits"),
        (["--schedule", "linear"], "one-cycle"),
        (["--epochs", "many"], "--epochs"),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--batch-size"], "--batch-size"),
        (["extra"], "extra"),
    ],
)
def test_values_that_cannot_be_are_refused_with_what_can(arguments, part, capsys):
    assert part in refused(arguments, capsys)


def test_without_arguments_the_configuration_is_the_default():
    assert parse([]) == Config() == PRESETS["default"]


def test_every_option_reaches_the_configuration(tmp_path):
    arguments = (
        f"--dataset mnist --data-dir {tmp_path} --norm-momentum 0.5 --norm-epsilon 0.25 --epochs 7 --batch-size 9 "
        f"--learning-rate 0.125 --schedule cosine --runs-dir {tmp_path} --name n --overwrite --seed 11"
    )
    config = parse(arguments.split())
    assert config == Config(
        "default",
        DataConfig("mnist", tmp_path),
        NormConfig(0.5, 0.25),
        OptimizerConfig(7, 9, 0.125, "cosine"),
        RunConfig(tmp_path, "n", True, 11),
    )
    for section in (config.data, config.norm, config.optimizer, config.run):
        for field in dataclasses.fields(section):
            assert getattr(section, field.name) != field.default, f"{field.name} is not tested here"


@pytest.mark.parametrize("spelling", [["--preset", "mnist-cnn-keras"], ["--preset=mnist-cnn-keras"]])
def test_a_preset_sets_options_and_single_ones_override_it(spelling):
    preset = parse(spelling)
    assert preset == Config(
        preset="mnist-cnn-keras",
        norm=NormConfig(norm_momentum=0.99, norm_epsilon=1e-3),
        optimizer=OptimizerConfig(epochs=5, batch_size=32, learning_rate=1e-3, schedule="constant"),
    )
    for arguments in (["--epochs", "1", *spelling], [*spelling, "--epochs", "1"]):
        assert parse(arguments) == dataclasses.replace(
            preset, optimizer=dataclasses.replace(preset.optimizer, epochs=1)
        )


def test_every_preset_can_be_named():
    for name, config in PRESETS.items():
        assert parse(["--preset", name]) == config
        assert config.preset == name


def test_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    options = [field.name for section in SECTIONS for field in dataclasses.fields(section)]
    assert len(options) >= 12
    for name in ["preset", *options]:
        assert f"--{name.replace('_', '-')} " in output
    for text in (*PRESETS, "auto", "mnist", "digits", "iris", "constant", "cosine", "one-cycle"):
        assert text in output
