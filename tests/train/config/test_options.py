"""The options of the command line: what they become, and what is said to those that are none."""

import dataclasses
import re

import jax
import pytest

import jaxbn
from train.commands import help
from train.commands.cli import COMMANDS, main, parse
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
    """The message for arguments that the parser refuses."""
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    return errors


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("--epoch", "--epochs"), ("--lerning-rate", "--learning-rate"), ("--norm-momentun", "--norm-momentum")],
)
def test_a_mistyped_option_is_answered_with_the_nearest(typed, meant, capsys):
    expected = f"error: there is no option {typed}: perhaps {meant}? python -m train --help all lists all\n"
    assert refused([typed, "3"], capsys) == refused([f"{typed}=3"], capsys) == expected


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--preset", "keras"], "--preset must be one of default, mnist-cnn-keras, "),
        (["--dataset", "mnits"], "--dataset must be one of auto, mnist, .*, iris; got mnits: perhaps mnist\\? "),
        (["--schedule", "linear"], "--schedule must be one of .*; got linear\\. "),
        (["--activation", "elu", "rleu"], "--activation must be one of .*; got rleu: perhaps relu\\? "),
        (["--epochs", "many"], "--epochs must be a number; got many\\. "),
        (["--channels", "8", "x"], "--channels must be a whole number; got x\\. "),
        (["--learning-rate", "fast"], "--learning-rate must be a number; got fast\\. "),
        (["--batch-size"], "--batch-size needs a value\\. "),
        (["--seed", "1", "2"], "'2' is neither an option nor the value of one\\. "),
        (["predict"], r"missing: Folder \(or name\) of a run, or a file from `export`\. "),
        (["predict", "run", "a.png", "--tpo", "2"], "there is no option --tpo: perhaps --top\\? "),
        (["study", "init-scales"], ".*must be one of all, .*; got init-scales: perhaps init-scale\\? "),
        (["predit"], "there is no command 'predit': perhaps predict\\? "),
    ],
)
def test_values_that_cannot_be_are_refused_with_what_can(arguments, part, capsys):
    assert re.match(f"error: {part}", refused(arguments, capsys))


def test_without_arguments_the_configuration_is_the_default():
    assert parse([]) == Config() == PRESETS["default"]


def test_every_option_reaches_the_configuration(tmp_path):
    arguments = (
        f"--dataset mnist --data-dir {tmp_path} --validation 0.1 "
        "--network mlp --channels 3 5 --hidden 7 --pool-every 2 --padding same --deslant on --crop 6 --shift 2 "
        "--norm-placement after --norm-input --no-norm-hidden --activation elu relu --dropout 0.5 "
        "--kernel-init normal --kernel-std 0.5 --precision bfloat16 "
        "--norm-momentum 0.5 --norm-epsilon 0.25 --norm-average debiased --norm-unbiased --norm-ghost-batch 4 "
        "--norm-renorm ramp --norm-r-max 2 --norm-d-max 1 --norm-scope device --no-norm-scale "
        "--epochs 7 --batch-size 9 --optimizer momentum --learning-rate 0.125 --schedule cosine --warmup 0.2 "
        "--sgd-momentum 0.5 --adam-epsilon 0.5 --weight-decay 0.5 --clip-norm 2 --clip-value 3 --label-smoothing 0.5 "
        f"--runs-dir {tmp_path} --name n --overwrite --seed 11 --checkpoint-minutes 2 --checkpoint-epochs 3 "
        "--keep-checkpoints 4 --patience 5 --tensorboard --profile --no-report "
        "--devices 2 --distributed --coordinator host:1 --num-processes 3 --process-id 1 --process-timeout 9"
    )
    config = parse(arguments.split())
    model = ModelConfig(
        "mlp",
        (3, 5),
        (7,),
        2,
        "same",
        "on",
        6,
        2,
        "after",
        True,
        False,
        ("elu", "relu"),
        0.5,
        "normal",
        0.5,
        "bfloat16",
    )
    run = RunConfig(tmp_path, "n", True, 11, None, None, 2.0, 3, 4, 5, True, True, True)
    assert config == Config(
        "default",
        DataConfig("mnist", tmp_path, 0.1),
        model,
        NormConfig(0.5, 0.25, "debiased", True, 4, "ramp", 2.0, 1.0, "device", False),
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
        model=ModelConfig(channels=(32, 64), deslant="off", crop=0, shift=0, norm_hidden=False, kernel_init="glorot"),
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


def printed(arguments, capsys, monkeypatch, columns=80):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(arguments) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert max(map(len, output.splitlines())) <= columns
    return output


def test_help_lists_the_commands_and_what_people_use_first(capsys, monkeypatch):
    output = printed(["--help"], capsys, monkeypatch)
    assert len(output.splitlines()) < 80
    for command in COMMANDS:
        assert f"\n  {command} " in output
    for name in help.FIRST:
        assert f"\n  --{name.replace('_', '-')}" in output
    assert "--adam-epsilon" not in output
    assert "--help all" in output


@pytest.mark.parametrize("columns", [80, 120])
def test_help_all_lists_every_option_and_its_values(columns, capsys, monkeypatch):
    output = printed(["--help", "all"], capsys, monkeypatch, columns)
    options = [field.name for section in SECTIONS for field in dataclasses.fields(section)]
    assert len(options) >= 12
    for name in ["preset", *options]:
        assert re.search(rf"^  --(no-)?{name.replace('_', '-')}( |$)", output, re.MULTILINE), name
    joined = re.sub(r"\n +", "", output)
    for words in ("|".join(PRESETS), "auto|mnist|fashion_mnist|cifar10|digits|iris", "constant|cosine|one-cycle"):
        assert words in joined
    assert "--epochs NUMBER or none" in output
    assert "None" not in output


def test_help_shows_where_a_preset_begins(capsys, monkeypatch):
    assert "[0.001]" in printed(["--preset", "mnist-cnn-keras", "--help"], capsys, monkeypatch)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("train", "presets")])
def test_help_of_a_command_explains_each_of_its_options(command, capsys, monkeypatch):
    output = printed([command, "--help"], capsys, monkeypatch)
    for section in help.sections(COMMANDS[command]):
        for option in section.options:
            assert option.explanation
            assert f"\n  {option.typed}" in output


def test_what_may_be_left_open_takes_none():
    given = "--data-dir none --channels none --epochs none --checkpoint-minutes None --name none"
    run = RunConfig(checkpoint_minutes=None)
    assert parse(given.split()) == dataclasses.replace(Config(), run=run)


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"jaxbn {jaxbn.__version__}, jax {jax.__version__}, Python 3.")
