"""Arrays kept in a file, with a digest that is verified at every load.

A file is one line of text, `jaxbn arrays 1 sha256 <digest of the rest>`, followed by an uncompressed .npz. It is
written beside its place and then renamed, so that it is there whole or not at all; whatever happens to it afterwards
changes the digest.
"""

import hashlib
import io
from pathlib import Path

import numpy as np

from train.data.dataset import Arrays

_FORMAT = b"jaxbn arrays 1 sha256 "
_HEADER_BYTES = len(_FORMAT) + 64 + 1


class DamagedCacheError(ValueError):
    """A file of cached arrays is not what was written."""


def write(path: Path, arrays: Arrays) -> None:
    """Writes arrays to a file, atomically. Only one process may write the same path at a time."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays._asdict())
    content = buffer.getbuffer()
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(_FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)
    part.replace(path)


def read(path: Path) -> Arrays | None:
    """Reads arrays back, or returns None where there is no such file.

    Raises:
        DamagedCacheError: the file is not, byte for byte, what `write` wrote.
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
