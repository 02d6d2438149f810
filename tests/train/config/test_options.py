"""The options of the command line: what they become, and what is said to those that are none."""

import dataclasses
import re

import pytest

from train.commands.cli import main, parse
from train.commands.presets import difference
from train.config.sections import (
    PRESETS,
    Config,
    DataConfig,
    DeviceConfig,
    ModelConfig,
    NormConfig,
    OptimizerConfig,
    RunConfig,
)

SECTIONS = (DataConfig, ModelConfig, NormConfig, OptimizerConfig, RunConfig, DeviceConfig)


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
    assert re.search(rf"Perhaps you meant:.*\s{meant}\b", errors, re.DOTALL)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--preset", "keras"], "mnist-cnn-keras"),
        (["--dataset", "cifar"], "cifar10"),
        (["--schedule", "linear"], "one-cycle"),
        (["--epochs", "many"], "--epochs"),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--batch-size"], "--batch-size"),
    ],
)
def test_values_that_cannot_be_are_refused_with_what_can(arguments, part, capsys):
    assert part in refused(arguments, capsys)


def test_without_arguments_the_configuration_is_the_default():
    assert parse([]) == Config() == PRESETS["default"]


def test_every_option_reaches_the_configuration(tmp_path):
    arguments = (
        f"--dataset mnist --data-dir {tmp_path} --validation 0.1 "
        "--network mlp --channels 3 5 --hidden 7 --pool-every 2 --padding same --norm-placement after --norm-input "
        "--norm-hidden --activation elu relu --dropout 0.5 "
        "--kernel-init normal --kernel-std 0.5 --precision bfloat16 "
        "--norm-momentum 0.5 --norm-epsilon 0.25 --norm-average debiased --norm-unbiased --norm-ghost-batch 4 "
        "--norm-renorm ramp --norm-r-max 2 --norm-d-max 1 --norm-scope device "
        "--epochs 7 --batch-size 9 --optimizer momentum --learning-rate 0.125 --schedule cosine --warmup 0.2 "
        "--sgd-momentum 0.5 --adam-epsilon 0.5 --weight-decay 0.5 --clip-norm 2 --clip-value 3 --label-smoothing 0.5 "
        f"--runs-dir {tmp_path} --name n --overwrite --seed 11 --checkpoint-minutes 2 --checkpoint-epochs 3 "
        "--keep-checkpoints 4 --patience 5 --tensorboard --profile --no-report "
        "--devices 2 --distributed --coordinator host:1 --num-processes 3 --process-id 1 --process-timeout 9"
    )
    config = parse(arguments.split())
    run = RunConfig(tmp_path, "n", True, 11, None, None, 2.0, 3, 4, 5, True, True, True)
    assert config == Config(
        "default",
        DataConfig("mnist", tmp_path, 0.1),
        ModelConfig(
            "mlp", (3, 5), (7,), 2, "same", "after", True, True, ("elu", "relu"), 0.5, "normal", 0.5, "bfloat16"
        ),
        NormConfig(0.5, 0.25, "debiased", True, 4, "ramp", 2.0, 1.0, "device"),
        OptimizerConfig(7, 9, "momentum", 0.125, "cosine", 0.2, 0.5, 0.5, 0.5, 2.0, 3.0, 0.5),
        run,
        DeviceConfig(2, True, "host:1", 3, 1, 9),
    )
    for section in (config.data, config.model, config.norm, config.optimizer, config.run, config.devices):
        for field in dataclasses.fields(section):
            if field.name in ("config", "resume"):  # these name files that are read at once
                continue
            assert getattr(section, field.name) != field.default, f"{field.name} is not tested here"


@pytest.mark.parametrize("spelling", [["--preset", "mnist-cnn-keras"], ["--preset=mnist-cnn-keras"]])
def test_a_preset_sets_options_and_single_ones_override_it(spelling):
    preset = parse(spelling)
    assert preset == Config(
        preset="mnist-cnn-keras",
        model=ModelConfig(kernel_init="glorot"),
        norm=NormConfig(norm_momentum=0.99, norm_epsilon=1e-3),
        optimizer=OptimizerConfig(5, 32, "adam", 1e-3, "constant", adam_epsilon=1e-7, label_smoothing=0.0),
    )
    for arguments in (["--epochs", "1", *spelling], [*spelling, "--epochs", "1"]):
        assert parse(arguments) == dataclasses.replace(
            preset, optimizer=dataclasses.replace(preset.optimizer, epochs=1)
        )


def test_what_a_preset_lists_are_its_options():
    for name, config in PRESETS.items():
        arguments = " ".join(difference(config)).split()
        assert parse(arguments) == dataclasses.replace(config, preset="default"), name


def test_the_dataset_of_a_preset_is_its_own_unless_another_is_named():
    assert parse(["--preset", "cifar10-cnn"]).data.dataset == "cifar10"
    other = parse(["--preset", "cifar10-cnn", "--dataset", "fashion_mnist"])
    assert other == dataclasses.replace(PRESETS["cifar10-cnn"], data=DataConfig("fashion_mnist"))
    assert not parse(["--preset", "mnist-mlp-after", "--no-norm-input"]).model.norm_input


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
    for text in (
        *PRESETS,
        "auto",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "digits",
        "iris",
        "constant",
        "cosine",
        "one-cycle",
    ):
        assert text in output
