"""An exported network: one file with everything needed for prediction, in which no bit can change unnoticed.

    jaxbn network 1 sha256 <digest of the rest>
    {"dataset": "mnist", "class_names": ["0", …], …}        the description, one line
    …                                                       the program, as `jax.export` serialises it

The first line must match the rest of the file byte for byte, so every byte is covered, including the first line itself.
The digest detects damage. It does not show who made the file.
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
Norms = Literal["folded", "partly folded", "evaluation mode", "none"]  # the form of a network's norms
INPUT_DTYPES = ("uint8", "float32")  # of all datasets here


class ArtifactError(UsageError):
    """A file is not an exported network, or has changed since it was written."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The map from the bytes of an image to the inputs of the network: (value - mean) * scale.

    The program includes it: it takes images of bytes. `polarity` is that of the images; None: as in photographs.
    """

    height: int
    width: int
    channels: int
    scale: float = 1 / 255
    mean: float = 0.0
    polarity: str | None = None


@dataclasses.dataclass(frozen=True)
class Description:
    """The description of a network, readable without running it."""

    dataset: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]  # of one example
    input_dtype: str
    preprocessing: Preprocessing | None  # None if the inputs are not images
    norms: Norms
    step: int  # the training steps behind it
    test_accuracy: float | None  # None if it was not measured at this step
    jax_version: str
    platforms: tuple[str, ...]


class Artifact(NamedTuple):
    """The content of a file."""

    description: Description
    program: bytes  # inputs (N, *input_shape) to logits (N, classes), as `jax.export` serialises it


def describe_preprocessing(input_shape: tuple[int, ...], input_dtype: str) -> Preprocessing | None:
    """Describe what `train.training.step.prepare` does to inputs of this shape and dtype.

    Example:
        >>> describe_preprocessing((28, 28, 1), "uint8").height, describe_preprocessing((4,), "float32")
        (28, None)

    """
    if input_dtype != "uint8" or len(input_shape) != 3:
        return None
    grey = input_shape[2] == 1  # of all datasets here, as in MNIST
    return Preprocessing(*input_shape, polarity="light on dark" if grey else None)


def write(path: Path, artifact: Artifact) -> str:
    """Write the file atomically, and return its digest.

    Raises:
        ArtifactError: another file is in its place.
        OSError: it cannot be written.

    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder: pass the name of a file in it, as in {path / 'network.jaxbn'}")
    if path.exists():
        with files.naming(path, "read"), path.open("rb") as file:
            if not file.read(len(MAGIC)) == MAGIC:
                raise ArtifactError(f"{path} is not an exported network and is left unchanged: pass another --output")
    description = json.dumps(dataclasses.asdict(artifact.description), allow_nan=False)
    rest = description.encode() + b"\n" + artifact.program
    files.write(path, _first_line(rest) + rest)
    return hashlib.sha256(rest).hexdigest()


def read(path: Path) -> Artifact:
    """Read and verify a file.

    Raises:
        ArtifactError: the file does not exist, is not an exported network, or is damaged.

    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder, not an exported network")
    if not path.exists():
        raise ArtifactError(f"there is no {path}")
    with files.naming(path, "read"):
        content = path.read_bytes()
    if not content:
        raise ArtifactError(f"{path} is empty: export the network again")
    if not content.startswith(MAGIC):
        raise ArtifactError(f"{path} is not an exported network: `python -m train export RUN` makes one")
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
        return f"{path} has format {int(version)}, or is damaged; this version of jaxbn reads {VERSION}: update jaxbn"
    return (
        f"{path} is damaged or cut short: its content does not match the SHA-256 it was written with. "
        "Copy it or export the network again"
    )


def _description(content: bytes) -> Description:
    """Parse the description in a file; raise a ValueError if it is not that of a network."""
    description = typed.read(Description, typed.parse(content), noun="field")
    shape, form = description.input_shape, description.preprocessing
    if min(shape, default=1) < 1 or math.prod(shape) > LARGEST_INPUT:
        raise ValueError(f"input_shape must be sizes of at least 1; got {typed.shown(shape)}")
    if description.input_dtype not in INPUT_DTYPES:
        raise ValueError(f"input_dtype must be one of {', '.join(INPUT_DTYPES)}; got {description.input_dtype[:20]!r}")
    if form and (form.height, form.width, form.channels) != shape:
        raise ValueError("preprocessing must have the sizes of input_shape")
    if not description.class_names:
        raise ValueError("class_names must name a class or more")
    return description
