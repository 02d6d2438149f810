"""config.json: what is written is read back, and what cannot be is said."""

import dataclasses
import json
from pathlib import Path

import pytest

from train.commands.cli import parse
from train.config import config_file
from train.config.sections import PRESETS, Config, DataConfig, ModelConfig, NormConfig, OptimizerConfig, RunConfig
from train.host import files
from train.host.errors import UsageError

FULL = Config(
    preset="mnist-cnn-keras",
    data=DataConfig("mnist", Path("ü"), 0.1),
    model=ModelConfig(channels=(3, 5), hidden=(7,), activation=("elu", "relu"), kernel_init="normal"),
    norm=NormConfig(norm_unbiased=True, norm_ghost_batch=4),
    optimizer=OptimizerConfig(epochs=7, learning_rate=1e-300, clip_norm=0.1),
    run=RunConfig(name="n", checkpoint_minutes=None),
)


@pytest.mark.parametrize("config", [FULL, *PRESETS.values()], ids=["full", *PRESETS])
def test_what_is_written_is_read_back(config, tmp_path):
    (tmp_path / "config.json").write_text(config_file.to_json(config), encoding="utf-8")
    assert config_file.read(tmp_path / "config.json") == config


def test_what_is_left_out_is_the_default_and_whole_numbers_are_numbers(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"optimizer": {"learning_rate": 1}}')
    config = config_file.read(path)
    assert config == Config(optimizer=OptimizerConfig(learning_rate=1.0))
    assert type(config.optimizer.learning_rate) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config.json is not a configuration \(JSON, like the config.json of a run\): "),
        ("[]", r"config.json: it must be an object of options; got \[\]"),
        ('{"optimiser": {}}', r"config.json: there is no option 'optimiser'; perhaps 'optimizer'\?"),
        ('{"data": 3}', r"data must be an object of options; got 3"),
        ('{"optimizer": {"lerning_rate": 3}}', r"no option 'optimizer.lerning_rate'; perhaps 'learning_rate'\?"),
        ('{"optimizer": {"zzz": 3}}', r"there is no option 'optimizer.zzz': take it out, or update jaxbn if"),
        ('{"optimizer": {"epochs": "3"}}', r'optimizer.epochs must be a number; got "3"'),
        ('{"optimizer": {"epochs": true}}', r"optimizer.epochs must be a number; got true"),
        ('{"optimizer": {"batch_size": 1.5}}', r"optimizer.batch_size must be a whole number; got 1.5"),
        ('{"optimizer": {"learning_rate": null}}', r"optimizer.learning_rate must be a number; got null"),
        ('{"optimizer": {"schedule": "x"}}', r'optimizer.schedule must be one of constant, .*; got "x"'),
        ('{"optimizer": {"schedule": []}}', r"optimizer.schedule must be one of constant, .*; got \[\]"),
        ('{"model": {"channels": 3}}', r"model.channels must be a list of whole numbers; got 3"),
        ('{"model": {"activation": "relu"}}', r'model.activation must be a list of names; got "relu"'),
        ('{"model": {"activation": ["rel"]}}', r'model.activation must be one of relu, .*; got "rel"'),
        ('{"model": {"channels": ["a"]}}', r'model.channels must be a whole number; got "a"'),
        ('{"run": {"runs_dir": 3}}', r"run.runs_dir must be a path; got 3"),
        ('{"run": {"overwrite": 1}}', r"run.overwrite must be true or false; got 1"),
        ("[" * 100_000, r"config.json is not a configuration \(.*\): it is nested too deeply"),
        (
            '{"model": {"hidden": ' + "[" * 300 + "]" * 300 + "}}",
            r"model.hidden must be a whole number; got \[\[\[.*…$",
        ),
        (
            '{"optimizer": {"learning_rate": 1' + "0" * 400 + "}}",
            r"learning_rate must be a number below 1.8e308; got 1",
        ),
        ('{"optimizer": {"epochs": 1' + "0" * 5000 + "}}", r"config.json is not a configuration \(.*\): .*digits"),
        ('{"run": {"name": "a\\u0000b"}}', r"run.name must not hold a null character; got "),
        ('{"' + "x" * 10_000 + '": 1}', r"there is no option 'x{79}…': take it out"),
    ],
)
def test_what_cannot_be_is_said(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        config_file.read(tmp_path / "config.json")
    assert len(str(caught.value)) < 600


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no .*none\.json"):
        config_file.read(tmp_path / "none.json")
    with pytest.raises(UsageError, match=f"{tmp_path} cannot be read: Is a directory"):
        config_file.read(tmp_path)


def test_the_command_line_begins_at_a_file_and_keeps_out_of_its_run(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config_file.to_json(FULL), encoding="utf-8")
    run = dataclasses.replace(FULL.run, name=None, config=path)
    assert parse(["--config", str(path)]) == dataclasses.replace(FULL, run=run)
    for arguments in (["--config", str(path), "--epochs", "9"], ["--epochs", "9", f"--config={path}"]):
        assert parse(arguments).optimizer == dataclasses.replace(FULL.optimizer, epochs=9)


def test_a_run_is_found_by_its_folder_and_by_its_name(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.json").write_text(json.dumps({}))
    for run in (tmp_path / "runs" / "a", Path("a")):
        assert config_file.find_run(run, tmp_path / "runs") == tmp_path / "runs" / "a"
    with pytest.raises(UsageError, match=r"there is no run b, neither as a folder nor in .*runs"):
        config_file.find_run(Path("b"), tmp_path / "runs")
    with pytest.raises(UsageError, match=r"runs is not the folder of a run: it has no config\.json"):
        config_file.find_run(tmp_path / "runs", tmp_path)


def test_the_configuration_of_a_run_is_what_the_run_has_written(tmp_path):
    config_file.write_run(tmp_path, FULL)
    assert config_file.read_run(tmp_path) == FULL
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "config.sha256"]
    for name in names:  # any bit of either
        whole = (tmp_path / name).read_bytes()
        for position in range(0, 8 * len(whole), 7):
            changed = bytearray(whole)
            changed[position // 8] ^= 1 << position % 8
            (tmp_path / name).write_bytes(changed)
            with pytest.raises(UsageError, match=r"config\.json has changed since the run wrote it"):
                config_file.read_run(tmp_path)
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "config.sha256").unlink()  # as in a run of an earlier version
    assert config_file.read_run(tmp_path) == FULL


def test_however_the_write_is_interrupted_the_configuration_can_be_read(tmp_path, monkeypatch):
    config_file.write_run(tmp_path, FULL)
    write = files.write
    for name in ("config.json", "config.sha256"):

        def interrupted(path, content, name=name):
            if path.name == name:
                raise KeyboardInterrupt
            write(path, content)

        monkeypatch.setattr(files, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            config_file.write_run(tmp_path, Config())
        assert config_file.read_run(tmp_path) == (FULL if name == "config.json" else Config())
