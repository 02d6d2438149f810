"""Training on many devices is training on one, to float32's tolerance; on one device it is what it always was."""

import dataclasses
import json
import shlex
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from closeness import assert_close

from train.commands.cli import main
from train.config.sections import Config, ModelConfig, NormConfig, OptimizerConfig, RunConfig
from train.data import load
from train.host.errors import UsageError
from train.training import loop
from train.training.devices import ONE, check_batch, choose, share
from train.training.plan import make_plan, resolve
from train.training.step import Examples, train_steps

DIGITS = Config(
    model=ModelConfig(channels=(4,), hidden=(8,), shift=1, dropout=0.2, norm_hidden=False),
    norm=NormConfig(norm_average="debiased"),
    optimizer=OptimizerConfig(epochs=2, batch_size=64, label_smoothing=0.1),
)


@pytest.fixture(scope="module")
def digits():
    """360 training and 101 test examples: 8 devices do not divide the latter."""
    whole = load("digits")
    return dataclasses.replace(
        whole,
        train_inputs=whole.train_inputs[:360],
        train_labels=whole.train_labels[:360],
        test_inputs=whole.test_inputs[:101],
        test_labels=whole.test_labels[:101],
    )


def assert_same(run, reference):
    assert len(run.events) == len(reference.events) == 2 * 6
    for event, expected in zip(run.events, reference.events, strict=True):
        for name, value in dataclasses.asdict(expected).items():
            if value is not None and name not in ("images_per_second", "train_seconds"):
                assert_close(getattr(event, name), value, condition=100, message=name)
    for leaf, expected in zip(jax.tree.leaves(run.states[-1]), jax.tree.leaves(reference.states[-1]), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=2e-4)


def test_many_devices_train_and_measure_as_one_does(digits, record):
    plan = make_plan(DIGITS, digits, choose(8))
    assert plan.devices.count == 8
    assert {len(array.devices()) for array in plan.train} == {8}
    assert_same(record(plan), record(make_plan(DIGITS, digits)))


def test_scope_device_is_ghost_batches_of_a_device_s_share(digits, record):
    ghosts = dataclasses.replace(DIGITS, norm=NormConfig(norm_ghost_batch=8))
    own = dataclasses.replace(DIGITS, norm=NormConfig(norm_scope="device"))
    assert_same(record(make_plan(own, digits, choose(8))), record(make_plan(ghosts, digits)))


def test_each_example_is_counted_once_whatever_the_devices(digits):
    plan = make_plan(DIGITS, digits, choose(8))
    state = loop.initial_state(plan)
    metrics = loop.compile_evaluation(plan.model, state, plan.test, plan.devices)(state, plan.test)
    assert int(metrics.count) == 101


def test_on_one_device_the_program_is_that_without_devices(digits):
    plan, step = make_plan(DIGITS, digits, choose(1)), jax.ShapeDtypeStruct((), np.int32)
    assert plan.devices is ONE
    state = loop.initializer(plan).eval_shape(plan.train.inputs[:1])
    steps = partial(train_steps, plan.model, plan.tx, batch_size=64, options=plan.options)

    def text(jit, function):
        order = jax.ShapeDtypeStruct(plan.train.labels.shape, np.int32)
        lowered = jit(function, donate_argnums=0).lower(state, Examples(*plan.train), order, (step, step))
        return lowered.as_text()

    assert text(plan.devices.jit, partial(steps, divide=plan.devices.divide)) == text(jax.jit, steps)


def test_all_devices_are_taken_unless_it_is_said():
    assert choose(None).count == 8
    mesh = choose(3).mesh
    assert mesh is not None
    assert list(mesh.devices) == jax.devices()[:3]
    for wanted in (0, 9):
        with pytest.raises(UsageError, match=f"--devices must be from 1 to 8, .*JAX_NUM_CPU_DEVICES.*; got {wanted}"):
            choose(wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, 1000, 6), "64 is not divisible among 6 devices: take --batch-size 60 or 66, or --devices 4"),
        ((9, 10, 8), "9 is not divisible among 8 devices: take --batch-size 8, or --devices 3"),
        ((64, 60000, 512, 64), "take --batch-size 512, or --devices 1 (of each process)"),
        ((9, 100, 4, 2), "take --batch-size 8 or 12"),
    ],
)
def test_a_batch_that_is_not_divisible_says_what_is(arguments, message):
    with pytest.raises(UsageError, match="--batch-size") as error:
        check_batch(*arguments)
    assert str(error.value).endswith(message)


def test_a_share_is_of_two_examples_or_more_and_contradicts_nothing(digits):
    assert share(64, 8, None) == share(64, 8, 8) == 8
    with pytest.raises(UsageError, match=r"the 8 examples of each of 8 devices .* every 4: leave one of them out"):
        share(64, 8, 4)
    with pytest.raises(UsageError, match="needs at least 2 examples on each device; a batch of 8 has 1 on each of 8"):
        share(8, 8, None)
    scoped = dataclasses.replace(DIGITS, norm=NormConfig(norm_scope="device"))
    begun = resolve(scoped, digits, choose(8))
    assert begun.norm.norm_ghost_batch == 8
    with pytest.raises(UsageError, match="the 64 examples of each of 1 devices"):
        resolve(begun, digits)
    resumed = dataclasses.replace(begun, run=RunConfig(resume=Path("run")))
    assert resolve(resumed, digits).norm.norm_ghost_batch == 8  # it stays what it was


IRIS = shlex.split("--dataset iris --hidden 8 --norm-average debiased --schedule constant --no-report")


def losses(folder):
    return [json.loads(line)["test_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_goes_on_on_more_or_fewer_devices(tmp_path, capsys):
    """With as many, to the bit; with others, to float32's tolerance."""

    def run(name, *arguments):
        assert main([*IRIS, "--runs-dir", str(tmp_path), "--name", name, *arguments]) == 0
        return tmp_path / name

    whole = run("whole", "--epochs", "4", "--devices", "8")
    assert "8 devices (cpu), 3 of a batch on each" in capsys.readouterr().out
    stopped = {count: run(f"{count}", "--epochs", "2", "--devices", f"{count}") for count in (1, 8)}
    for before, options in ((8, ()), (8, ("--devices", "1")), (1, ("--devices", "8"))):
        folder = shutil.copytree(stopped[before], tmp_path / f"{before} {' '.join(options)}")
        assert main(["--resume", str(folder), "--epochs", "4", *options]) == 0
        if not options:
            assert losses(folder) == losses(whole)
            assert (folder / "variables.npz").read_bytes() == (whole / "variables.npz").read_bytes()
        assert_close(losses(folder), losses(whole), condition=50, size=0)


def test_the_report_is_made_of_a_run_on_many_devices(command):
    run = command("--dataset", "iris", "--hidden", "8", "--epochs", "1", "--devices", "4")
    assert run.code == 0, run.errors
    assert (run.folder / "report.html").exists()


def test_more_devices_than_there_are_is_an_error(tmp_path, capsys):
    assert main([*IRIS, "--runs-dir", str(tmp_path), "--devices", "9"]) == 1
    assert capsys.readouterr().err.startswith("error: --devices must be from 1 to 8")
    assert main([*IRIS, "--runs-dir", str(tmp_path), "--devices", "7"]) == 1
    assert "--batch-size 24 is not divisible among 7 devices: take --batch-size 21 or 28, or --devices 6" in (
        capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())
