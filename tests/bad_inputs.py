"""Common mistakes on the command line, each as a command in a folder with a run, data and images."""

import contextlib
import dataclasses
import datetime
import io
import json
import os
import pickle
import resource
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import small_run
from PIL import Image

from train.config import config_file
from train.config.sections import Config
from train.data import cifar10, load
from train.inference import artifact
from train.inference.artifact import Artifact, Description, Preprocessing
from train.runs import checkpoint, results
from train.runs.identity import Identity
from train.runs.restored import restore
from train.runs.writer import Writer
from train.training.loop import Position

Context = Callable[[], contextlib.AbstractContextManager[object]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A command that contains a mistake.

    Attributes:
        section: the section of docs/errors.md.
        fault: the mistake in words.
        command: the arguments of `python -m train`.
        prepare: a function that creates the fault in the current folder, in which the command is run.
        around: a context in which the command is run.
        code: the exit code.
        environment: environment variables of the command; if there are any, it is run in a separate process.

    """

    section: str
    fault: str
    command: str
    prepare: Callable[[], object] = lambda: None
    around: Context = contextlib.nullcontext
    code: int = 1
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def typed(self) -> str:
        """The whole command line."""
        variables = "".join(f"{name}={value} " for name, value in self.environment)
        return f"{variables}python -m train {self.command}".strip()


def furnish(folder: Path) -> None:
    """`runs/a` (images) and `runs/flowers` (iris), with two checkpoints; `data` with a small MNIST; `digit.png`."""
    for name, card, model in (
        ("a", small_run.DIGITS, small_run.CNN),
        ("flowers", load("iris").card, small_run.MLP),
    ):
        run = small_run.write(folder / "runs" / name, card, model)
        state = restore(run, folder).state._replace(step=np.int32(small_run.STEP + 1))
        checkpoint.save(run / results.CHECKPOINTS, state, Position(epoch=2, epoch_step=1), card, keep=2)
    random = np.random.default_rng(0)
    (folder / "data").mkdir()
    for part, count in (("train", 12), ("t10k", 5)):
        images, labels = random.integers(0, 256, (count, 28, 28)), random.integers(0, 10, count)
        write_idx(folder / "data" / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / "data" / f"{part}-labels-idx1-ubyte", labels)
    Image.fromarray(random.integers(0, 256, (12, 12), np.uint8)).save(folder / "digit.png")


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an IDX file of bytes."""
    head = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def text(name: str, content: str | bytes) -> Callable[[], object]:
    """A function that writes a file with this content."""
    return lambda: Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[], object]:
    """A function that replaces the content of a file."""
    return lambda: Path(name).write_bytes(change(Path(name).read_bytes()))


def cut(content: bytes) -> bytes:
    """The first half of the content."""
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    """The content with one bit in the middle flipped."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def damage(*steps: int) -> Callable[[], object]:
    """A function that flips a bit in each of these checkpoints of `runs/a`."""
    names = [f"runs/a/checkpoints/step-{step:09d}/position.json" for step in steps]
    return lambda: [edit(name, flip)() for name in names]


def export(**changes: object) -> Callable[[], object]:
    """`network.jaxbn`, an exported network that holds no program."""
    description = Description(
        "digits", ("a",), (2, 3, 1), "uint8", Preprocessing(2, 3, 1), "none", 7, 0.5, "0.1", ("cpu",)
    )
    described = dataclasses.replace(description, **changes)  # pyright: ignore[reportArgumentType]
    return lambda: artifact.write(Path("network.jaxbn"), Artifact(described, b"of another age"))


def foreign(step: int) -> None:
    """Write a checkpoint of another run into `runs/a`."""
    run, other = Path("runs/a"), Identity({"seed": 1}, None)
    state = restore(run, Path("runs")).state._replace(step=np.int32(step))
    checkpoint.save(run / results.CHECKPOINTS, state, Position(epoch=2), small_run.DIGITS, keep=9, run=other)


def cifar10_archive(change: Callable[[bytes], bytes]) -> Callable[[], object]:
    """`data/cifar-10-binary.tar.gz` with two images a file, damaged."""

    def write() -> None:
        path = Path("data/cifar-10-binary.tar.gz")
        with tarfile.open(path, "w:gz") as archive:
            for batch in cifar10.BATCHES:
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{batch}.bin")
                member.size = 2 * 3073
                archive.addfile(member, io.BytesIO(bytes(member.size)))
        path.write_bytes(change(path.read_bytes()))

    return write


def pickles(value: object) -> Callable[[], object]:
    """Six files of this in `data`, named as CIFAR-10's are."""
    return lambda: [Path("data", batch).write_bytes(pickle.dumps(value, protocol=4)) for batch in cifar10.BATCHES]


def options(**values: object) -> Callable[[], object]:
    """`my.json`, a configuration."""
    return text("my.json", json.dumps(values))


@contextlib.contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """A context in which the system refuses larger files, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def closed(name: str) -> Iterator[None]:
    """A context in which a folder cannot be written or a file cannot be read; root becomes another user in it."""
    path, user = Path(name), os.geteuid()
    mode = path.stat().st_mode
    path.chmod(0o555 if path.is_dir() else 0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


@contextlib.contextmanager
def bomb() -> Iterator[None]:
    """An image with more pixels than the program accepts."""
    Image.new("1", (12_000, 9_000)).save("poster.png")
    yield


IRIS = "--dataset iris "
OPTIONS = [
    Case("Options", "a mistyped option", "--epoch 3", code=2),
    Case("Options", "a mistyped option", "--lerning-rate 0.1", code=2),
    Case("Options", "a mistyped command", "pedict runs/a digit.png", code=2),
    Case("Options", "an unknown preset", "--preset kears", code=2),
    Case("Options", "an unknown dataset", "--dataset minst", code=2),
    Case("Options", "not a number", "--epochs many", code=2),
    Case("Options", "a missing value", "--batch-size", code=2),
    Case("Options", "out of range", IRIS + "--epochs 0"),
    Case("Options", "out of range", IRIS + "--batch-size 1"),
    Case("Options", "out of range", IRIS + "--batch-size 500"),
    Case("Options", "out of range", IRIS + "--learning-rate -1"),
    Case("Options", "too high: training diverges", IRIS + "--name b --epochs 1 --learning-rate 1e30"),
    Case("Options", "out of range", IRIS + "--dropout 1"),
    Case("Options", "out of range", IRIS + "--norm-momentum 2"),
    Case("Options", "out of range", IRIS + "--norm-epsilon -1"),
    Case("Options", "does not divide the batch", IRIS + "--norm-ghost-batch 7"),
    Case("Options", "out of range", IRIS + "--validation 1"),
    Case("Options", "out of range", IRIS + "--seed -1"),
    Case("Options", "out of range", IRIS + "--checkpoint-minutes -1"),
    Case("Options", "out of range", IRIS + "--keep-checkpoints 0"),
    Case("Options", "out of range", IRIS + "--label-smoothing 1"),
    Case("Options", "for another kind of network", IRIS + "--channels 8"),
    Case("Options", "images prepared where there are none", IRIS + "--deslant on"),
    Case("Options", "nothing left of the images", "--dataset digits --crop 14"),
    Case("Options", "nothing left of the images", "--dataset digits --shift 28"),
    Case("Options", "no validation set", IRIS + "--patience 3"),
    Case("Options", "for another dataset", IRIS + "--data-dir data"),
    Case("Options", "not the name of a folder", IRIS + "--name a/b"),
    Case("Options", "two that contradict each other", "--preset default --config my.json"),
    Case("Options", "two that contradict each other", "--resume a --overwrite"),
    Case("Options", "a change that a resumed run cannot make", "--resume flowers --learning-rate 0.1"),
    Case("Options", "a change that a resumed run cannot make", "--resume flowers --name b"),
    Case("Options", "no images", "predict a"),
    Case("Options", "out of range", "predict a digit.png --top 0"),
]
CONFIGURATION = [
    Case("Configurations", "a missing file", "--config my.json"),
    Case("Configurations", "not JSON", "--config my.json", text("my.json", '{"data": ')),
    Case("Configurations", "an unknown option", "--config my.json", options(model={"chanels": [8]})),
    Case("Configurations", "an option of a newer version", "--config my.json", options(model={"depth": 8})),
    Case("Configurations", "a value of the wrong type", "--config my.json", options(optimizer={"epochs": "two"})),
    Case("Configurations", "an invalid value", "--config my.json", options(data={"dataset": "minst"})),
    Case("Configurations", "nested too deeply", "--config my.json", text("my.json", "[" * 100_000)),
    Case("Configurations", "a number too large", "--config my.json", options(optimizer={"learning_rate": 10**400})),
    Case("Configurations", "a folder", "--config runs"),
    Case(
        "Configurations",
        "the configuration of a run, edited",
        "--resume a",
        edit("runs/a/config.json", lambda content: content.replace(b"0.015", b"0.016")),
    ),
    Case("Configurations", "an unreadable file", "--config my.json", options(), around=lambda: closed("my.json")),
]
MNIST, CIFAR10 = "--dataset mnist --data-dir data", "--dataset cifar10 --data-dir data"
DATA = [
    Case("Data", "a missing folder", "--dataset mnist --data-dir dta"),
    Case("Data", "a missing file", MNIST, Path("data/t10k-labels-idx1-ubyte").unlink),
    Case("Data", "a truncated file", MNIST, edit("data/train-images-idx3-ubyte", cut)),
    Case("Data", "an empty file", MNIST, text("data/t10k-images-idx3-ubyte", b"")),
    Case(
        "Data",
        "two files swapped",
        MNIST,
        lambda: shutil.copy("data/train-labels-idx1-ubyte", "data/train-images-idx3-ubyte"),
    ),
    Case("Data", "another format", MNIST, text("data/train-images-idx3-ubyte", b"PK\3\4" + bytes(999))),
    Case("Data", "values of another type", MNIST, text("data/train-images-idx3-ubyte", b"\0\0\x0d\3" + bytes(999))),
    Case("Data", "a label out of range", MNIST, edit("data/train-labels-idx1-ubyte", lambda c: c[:-1] + b"\x0b")),
    Case(
        "Data",
        "images and labels of different sets",
        MNIST,
        lambda: shutil.copy("data/t10k-labels-idx1-ubyte", "data/train-labels-idx1-ubyte"),
    ),
    Case("Data", "damaged gzip data", MNIST, text("data/train-labels-idx1-ubyte", b"\x1f\x8b\x08" + bytes(30))),
    Case("Data", "other data", CIFAR10),
    Case("Data", "a damaged archive", CIFAR10, cifar10_archive(flip)),
    Case("Data", "an archive of another kind", CIFAR10, text("data/cifar-10-binary.tar.gz", b"PK\3\4" + bytes(999))),
    Case("Data", "a pickle of something else", CIFAR10, pickles({"data": datetime.date(2009, 4, 8)})),
    Case("Data", "files of CIFAR-100", CIFAR10, pickles({"data": [], "fine_labels": [1]})),
    Case("Data", "other data than the run was trained on", "evaluate a"),
    Case("Data", "other data than the run was trained on", "report a"),
]
IMAGES = [
    Case("Images", "a missing file", "predict a nine.png"),
    Case("Images", "not an image", "predict a letter.png", text("letter.png", "Dear Sir or Madam")),
    Case("Images", "an empty file", "predict a empty.png", text("empty.png", b"")),
    Case("Images", "a truncated file", "predict a digit.png", edit("digit.png", lambda content: content[:-60])),
    Case("Images", "an image too large", "predict a poster.png", around=bomb),
    Case("Images", "a folder without images", "predict a data"),
    Case("Images", "an empty pipe", "predict a /dev/null"),
    Case("Images", "a network that takes no images", "predict flowers digit.png"),
]
NETWORKS = [
    Case("Exported networks", "a missing file", "predict network.jaxbn digit.png"),
    Case("Exported networks", "another kind of file", "predict digit.png digit.png"),
    Case("Exported networks", "an empty file", "predict network.jaxbn digit.png", text("network.jaxbn", b"")),
    Case(
        "Exported networks",
        "a damaged file",
        "predict network.jaxbn digit.png",
        lambda: (export()(), edit("network.jaxbn", flip)()),
    ),
    Case(
        "Exported networks",
        "a file of a newer version",
        "predict network.jaxbn digit.png",
        text("network.jaxbn", artifact.MAGIC + b"2 sha256 0\n"),
    ),
    Case(
        "Exported networks",
        "an invalid description",
        "predict network.jaxbn digit.png",
        export(input_dtype="object"),
    ),
    Case("Exported networks", "a file of an older JAX", "predict network.jaxbn digit.png", export()),
    Case("Exported networks", "for another device", "predict network.jaxbn digit.png", export(platforms=("tpu",))),
    Case("Exported networks", "a missing output folder", "export a --output there/network.jaxbn"),
    Case("Exported networks", "a folder as output", "export a --output data"),
    Case("Exported networks", "another file in the place of the output", "export a --output digit.png"),
]
CHECKPOINTS = [
    Case("Runs and their checkpoints", "no such run", "--resume b"),
    Case("Runs and their checkpoints", "not the folder of a run", "evaluate data"),
    Case(
        "Runs and their checkpoints",
        "the newest checkpoint is damaged: the one before is used",
        "export a",
        damage(8),
        code=0,
    ),
    Case("Runs and their checkpoints", "all checkpoints are damaged", "export a", damage(7, 8)),
    Case("Runs and their checkpoints", "all checkpoints are damaged", "--resume a", damage(7, 8)),
    Case(
        "Runs and their checkpoints",
        "a checkpoint belongs to another run: the one before is used",
        "export a",
        lambda: foreign(9),
        code=0,
    ),
    Case(
        "Runs and their checkpoints",
        "a record is damaged: the others are used",
        "export a",
        edit("runs/a/metrics.jsonl", flip),
        code=0,
    ),
    Case("Runs and their checkpoints", "no checkpoint yet", "export a", lambda: shutil.rmtree("runs/a/checkpoints")),
    Case("Runs and their checkpoints", "no best checkpoint", "export a --checkpoint best"),
    Case(
        "Runs and their checkpoints",
        "a configuration of another network",
        "export a",
        lambda: config_file.write_run(Path("runs/a"), Config(model=small_run.MLP)),
    ),
]
FOLDERS = [
    Case("Folders and disks", "an earlier run", IRIS + "--name a"),
    Case("Folders and disks", "another folder", IRIS + "--runs-dir . --name data --overwrite"),
    Case("Folders and disks", "a file", IRIS + "--runs-dir . --name digit.png"),
    Case("Folders and disks", "a file in place of a folder", IRIS + "--runs-dir digit.png --name b"),
    Case(
        "Folders and disks",
        "a folder without write permission",
        IRIS + "--runs-dir data --name b",
        around=lambda: closed("data"),
    ),
    Case(
        "Folders and disks",
        "in use by another process",
        IRIS + "--name b --overwrite",
        around=lambda: Writer(Path("runs/b")).claim(),
    ),
    Case(
        "Folders and disks",
        "a full disk, at the start",
        IRIS + "--name b",
        around=lambda: small_disk(1000),
    ),
    Case(
        "Folders and disks",
        "a full disk, later",
        IRIS + "--name b --epochs 1 --hidden 8 --no-report",
        around=lambda: small_disk(4000),
    ),
    Case("Folders and disks", "a full disk", "export a", around=lambda: small_disk(1000)),
]
DEVICES = [
    Case("Devices", "a missing platform", IRIS, environment=(("JAX_PLATFORMS", "cuda"),)),
    Case("Devices", "an unknown platform", IRIS, environment=(("JAX_PLATFORMS", "gpuu"),)),
]
CASES = [
    *OPTIONS,
    *CONFIGURATION,
    *DATA,
    *IMAGES,
    *NETWORKS,
    *CHECKPOINTS,
    *FOLDERS,
    *DEVICES,
]
