"""An exported network: one file with everything that predicting needs, in which no bit can change unnoticed.

    jaxbn network 1 sha256 <digest of the rest>
    {"dataset": "mnist", "class_names": ["0", …], …}        the description, one line
    …                                                       the program, as `jax.export` serialises it

The first line must be, byte for byte, what the rest of the file gives; so every byte is covered, the first line's own
included. The digest tells what is damaged from what is whole. It tells nothing of who made the file.
"""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Literal, NamedTuple

from train.host import files, typed
from train.host.errors import UsageError

MAGIC = b"jaxbn network "
VERSION = 1
LARGEST_INPUT = 1 << 28  # numbers
Norms = Literal["folded", "partly folded", "evaluation mode", "none"]  # what became of a network's norms
INPUT_DTYPES = ("uint8", "float32")  # those of all datasets here


class ArtifactError(UsageError):
    """A file is no exported network, or not the one that was written."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From the numbers of an image to those that the network computes with: (value - mean) * scale.

    The program does this itself: it takes images of bytes. `polarity` is how images must be; None: as photographs are.
    """

    height: int
    width: int
    channels: int
    scale: float = 1 / 255
    mean: float = 0.0
    polarity: str | None = None


@dataclasses.dataclass(frozen=True)
class Description:
    """What there is to know of a network without running it."""

    dataset: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]  # of one example
    input_dtype: str
    preprocessing: Preprocessing | None  # None where the inputs are no images: they are taken as they are
    norms: Norms
    step: int  # how long it was trained
    test_accuracy: float | None  # None where it was not measured at this step
    jax_version: str
    platforms: tuple[str, ...]


class Artifact(NamedTuple):
    """A file's content."""

    description: Description
    program: bytes  # inputs (N, *input_shape) to logits (N, classes), as `jax.export` serialises it


def describe_preprocessing(input_shape: tuple[int, ...], input_dtype: str) -> Preprocessing | None:
    """What `train.training.step.prepare` does to such inputs.

    Example:
        >>> describe_preprocessing((28, 28, 1), "uint8").height, describe_preprocessing((4,), "float32")
        (28, None)

    """
    if input_dtype != "uint8" or len(input_shape) != 3:
        return None
    grey = input_shape[2] == 1  # of all datasets here, as in MNIST
    return Preprocessing(*input_shape, polarity="light on dark" if grey else None)


def write(path: Path, artifact: Artifact) -> str:
    """Writes the file, whole or not at all; returns its digest.

    Raises:
        ArtifactError: there is something else in its place.
        OSError: it cannot be written.

    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder: pass the name of a file in it, as in {path / 'network.jaxbn'}")
    if path.exists():
        with files.naming(path, "read"), path.open("rb") as file:
            if not file.read(len(MAGIC)) == MAGIC:
                raise ArtifactError(f"{path} is no exported network, and stays as it is: pass another --output")
    description = json.dumps(dataclasses.asdict(artifact.description), allow_nan=False)
    rest = description.encode() + b"\n" + artifact.program
    files.write(path, _first_line(rest) + rest)
    return hashlib.sha256(rest).hexdigest()


def read(path: Path) -> Artifact:
    """Reads a file back, verified.

    Raises:
        ArtifactError: there is no such file, it is no exported network, or it is damaged or made by something else.

    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder, and no exported network")
    if not path.exists():
        raise ArtifactError(f"there is no {path}")
    with files.naming(path, "read"):
        content = path.read_bytes()
    if not content:
        raise ArtifactError(f"{path} is empty: export the network again")
    if not content.startswith(MAGIC):
        raise ArtifactError(f"{path} is no exported network: `python -m train export RUN` makes one")
    first, _, rest = content.partition(b"\n")
    if first + b"\n" != _first_line(rest):
        raise ArtifactError(_what_is_wrong(path, first))
    description, _, program = rest.partition(b"\n")
    try:
        return Artifact(_description(description), program)
    except ValueError as error:
        raise ArtifactError(
            f"{path} matches its SHA-256, but its description is not one that jaxbn writes ({error}): export the "
            "network again"
        ) from error


def _first_line(rest: bytes) -> bytes:
    return MAGIC + f"{VERSION} sha256 {hashlib.sha256(rest).hexdigest()}\n".encode()


def _what_is_wrong(path: Path, first: bytes) -> str:
    version = first.removeprefix(MAGIC).split(b" ")[0]
    if version.isdigit() and len(version) < 9 and int(version) > VERSION:
        return f"{path} is of format {int(version)}, or damaged; this version of jaxbn reads {VERSION}: update jaxbn"
    return (
        f"{path} is damaged or cut short: its content does not match the SHA-256 it was written with. "
        "Copy it or export the network again"
    )


def _description(content: bytes) -> Description:
    """The description in a file; a ValueError where none is that a network can have."""
    description = typed.read(Description, typed.parse(content), noun="field")
    shape, form = description.input_shape, description.preprocessing
    if min(shape, default=1) < 1 or math.prod(shape) > LARGEST_INPUT:
        raise ValueError(f"input_shape must be sizes of at least 1; got {typed.shown(shape)}")
    if description.input_dtype not in INPUT_DTYPES:
        raise ValueError(f"input_dtype must be one of {', '.join(INPUT_DTYPES)}; got {description.input_dtype[:20]!r}")
    if form and (form.height, form.width, form.channels) != shape:
        raise ValueError("preprocessing must be of images of input_shape")
    if not description.class_names:
        raise ValueError("class_names must name a class or more")
    return description
