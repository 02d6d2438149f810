"""Small runs that many tests look at; each is compiled once a session."""

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from bad_inputs import write_idx

from train.commands.cli import main
from train.config.sections import OptimizerConfig
from train.data import Dataset, DatasetUnavailableError, load, preparation
from train.data.published import Published
from train.network.convolution import convolve
from train.network.models import CNN
from train.training import devices, loop
from train.training.optimizer import optimizer
from train.training.plan import Plan
from train.training.step import Examples, TrainState

ROOT = Path(__file__).parents[2]
REAL_MNIST = Path(os.environ.get("JAXBN_MNIST_DIR", ROOT.parent / "shared" / "data" / "mnist"))


@pytest.fixture(scope="session", autouse=True)
def one_device() -> Iterator[None]:
    """A run that does not say on how many devices takes one of the eight, and compiles sooner."""
    with pytest.MonkeyPatch.context() as patch:
        choose = devices.choose
        patch.setattr(devices, "choose", lambda wanted: choose(wanted or 1))
        yield


def draw_blobs(random: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Noisy 12×12 images with a bright square, whose place tells the class."""
    images = random.integers(0, 120, (len(labels), 12, 12, 1))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4, 4 * label : 4 * label + 4] += 120
    return images.astype(np.uint8)


@pytest.fixture(scope="session")
def blobs() -> Dataset:
    """50 training and 23 test images of three classes: no batch size in use here divides them."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 73).astype(np.int32)
    images = draw_blobs(random, labels)
    return Dataset("blobs", "drawn", images[:50], labels[:50], images[50:], labels[50:], ("a", "b", "c"))


@pytest.fixture(scope="session")
def plan(blobs: Dataset) -> Plan:
    """Two epochs of 6 steps with a very small CNN; 2 of the 50 examples sit out each epoch."""
    return Plan(
        model=CNN(3, channels=(4,), hidden=8, convolution=convolve),
        tx=optimizer(OptimizerConfig(learning_rate=1e-2), total_steps=12),
        train=Examples(jax.numpy.asarray(blobs.train_inputs), jax.numpy.asarray(blobs.train_labels)),
        test=Examples(jax.numpy.asarray(blobs.test_inputs), jax.numpy.asarray(blobs.test_labels)),
        epochs=2,
        batch_size=8,
        seed=0,
    )


@pytest.fixture(scope="session")
def programs(plan: Plan) -> loop.Programs:
    """The compiled programs of the plan."""
    return loop.compile_programs(plan, loop.initial_state(plan))


class Recorded(NamedTuple):
    """The events of a run, each with its state on the host."""

    snapshots: list[loop.Snapshot]

    @property
    def events(self) -> list[loop.Progress | loop.Epoch]:
        return [snapshot.event for snapshot in self.snapshots]

    @property
    def states(self) -> list[TrainState]:
        return [snapshot.state for snapshot in self.snapshots]

    @property
    def progress(self) -> list[loop.Progress]:
        return [event for event in self.events if isinstance(event, loop.Progress)]

    @property
    def epochs(self) -> list[loop.Epoch]:
        return [event for event in self.events if isinstance(event, loop.Epoch)]


@pytest.fixture(scope="session")
def record() -> Callable[..., Recorded]:
    """Runs a plan to its end."""

    def run(plan: Plan, programs: loop.Programs | None = None) -> Recorded:
        state = loop.initial_state(plan)
        programs = loop.compile_programs(plan, state) if programs is None else programs
        snapshots = []
        for snapshot in loop.run(plan, programs, state):
            snapshots.append(snapshot._replace(state=jax.tree.map(np.array, snapshot.state)))
        return Recorded(snapshots)

    return run


@pytest.fixture(scope="session")
def recorded(plan: Plan, programs: loop.Programs, record: Callable[..., Recorded]) -> Recorded:
    """The plan's run."""
    return record(plan, programs)


class Finished(NamedTuple):
    """The results of a command."""

    code: int
    output: str
    errors: str
    folder: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line, parse_constant=pytest.fail) for line in lines]


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """Runs `python -m train` in this process, in a folder of its own, in no terminal and 100 columns wide."""

    def run(*arguments: str) -> Finished:
        runs = tmp_path_factory.mktemp("runs")
        output, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
                patch.delenv(name, raising=False)
            patch.setenv("COLUMNS", "100")
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
                code = main([*arguments, "--runs-dir", str(runs), "--name", "run"])
        return Finished(code, output.getvalue(), errors.getvalue(), runs / "run")

    return run


@contextlib.contextmanager
def without_mnist() -> Iterator[None]:
    """MNIST can be had from nowhere."""

    def fail(source: Published, _: object) -> None:
        raise DatasetUnavailableError(source, "there is no network here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "from_tensorflow_datasets", fail)
        yield


@pytest.fixture
def no_mnist() -> Iterator[None]:
    """MNIST can be had from nowhere, for this test."""
    with without_mnist():
        yield


@pytest.fixture(scope="session")
def digits_run(command: Callable[..., Finished]) -> Finished:
    """Two epochs without MNIST: the digits stand in for it."""
    with without_mnist():
        return command("--epochs", "2")


@pytest.fixture(scope="session")
def iris_run(command: Callable[..., Finished]) -> Finished:
    """Iris by its default recipe."""
    return command("--dataset", "iris")


def mnist_folder() -> Path:
    """The folder of the real MNIST, where there is one."""
    if not REAL_MNIST.is_dir():
        pytest.skip("the real MNIST is not here: set JAXBN_MNIST_DIR to a folder with its four IDX files")
    return REAL_MNIST


@pytest.fixture(scope="session")
def real_mnist() -> Dataset:
    """The first 6,000 training and 1,000 test examples of MNIST, where there is MNIST."""
    whole = load("mnist", data_dir=mnist_folder())
    return dataclasses.replace(
        whole,
        train_inputs=whole.train_inputs[:6000],
        train_labels=whole.train_labels[:6000],
        test_inputs=whole.test_inputs[:1000],
        test_labels=whole.test_labels[:1000],
    )


@pytest.fixture(scope="session")
def mnist_run(command: Callable[..., Finished], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A small CNN that saw 15,000 examples of MNIST twice: some seconds, and right about 98 of 100."""
    folder = tmp_path_factory.mktemp("mnist")
    whole = load("mnist", data_dir=mnist_folder())
    for part, inputs, labels, count in (
        ("train", whole.train_inputs, whole.train_labels, 15_000),
        ("t10k", whole.test_inputs, whole.test_labels, 1_000),
    ):
        write_idx(folder / f"{part}-images-idx3-ubyte", inputs[:count, ..., 0])
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels[:count])
    network = "--channels 16 32 --hidden 64 --epochs 2 --no-report"
    return command("--dataset", "mnist", "--data-dir", str(folder), *network.split())
