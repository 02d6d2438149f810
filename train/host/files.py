"""Atomic and durable writing of files, also through a crash or a power failure, and errors that name the file."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def naming(path: Path, what: str = "written") -> Iterator[None]:
    """A context in which errors of the system name a file.

    Example:
        >>> with naming(Path("here"), "read"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        OSError: here cannot be read: No space left on device

    """
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} cannot be {what}: {error.strerror or error}") from error


def part_name(name: str) -> str:
    """The name of a file while its new content is being written; it remains if the program is killed then."""
    return f".{name}.part"


def write(path: Path, content: bytes | str) -> None:
    """Replace the content of a file, atomically and durably."""
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(part_name(path.name))
    with naming(path):
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync(path.parent)


def append(path: Path, line: str) -> None:
    """Append a line to a file."""
    with naming(path), path.open("ab") as file:
        file.write(line.encode() + b"\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
