"""A file of arrays with a digest that is verified whenever it is read.

A file is one line of text, `jaxbn arrays 1 sha256 <digest of the rest>`, followed by an uncompressed .npz. It is
written under another name and then renamed, so that it is never incomplete; any later damage changes the digest.
"""

import hashlib
import io
from pathlib import Path

import numpy as np

from train.data.dataset import Arrays

_FORMAT = b"jaxbn arrays 1 sha256 "
_HEADER_BYTES = len(_FORMAT) + 64 + 1


class DamagedCacheError(ValueError):
    """A file of cached arrays has changed since it was written."""


def write(path: Path, arrays: Arrays) -> None:
    """Write arrays to a file atomically. Only one process may write to a path at a time."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays._asdict())
    content = buffer.getbuffer()
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(_FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)
    part.replace(path)


def read(path: Path) -> Arrays | None:
    """Read arrays from a file, or return None if it does not exist.

    Raises:
        DamagedCacheError: the file has changed since `write` wrote it.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    rest = memoryview(content)[_HEADER_BYTES:]
    if content[:_HEADER_BYTES] != _FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n":
        raise DamagedCacheError(f"{path} is damaged: its content does not match the SHA-256 it was written with")
    with np.load(io.BytesIO(rest), allow_pickle=False) as stored:
        return Arrays(**stored)
