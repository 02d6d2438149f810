"""The image files for paths on the command line: a file, a folder of files, or a pipe."""

import io
import re
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from train.host.errors import UsageError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp")
STANDARD_INPUT = Path("-")
MOST_BYTES = 1 << 28  # of a pipe, whose length is unknown


class ImageError(UsageError):
    """A file is not a usable image."""


def listed(path: Path) -> list[Path]:
    """List the images in a folder in natural order (2 before 10); return any other path unchanged.

    Raises:
        ImageError: the folder contains no images, or cannot be read.

    """
    if not path.is_dir():
        return [path]
    try:
        found = [each for each in path.iterdir() if each.suffix.lower() in SUFFIXES and not each.name.startswith(".")]
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    if not found:
        raise ImageError(f"{path} is a folder without images ({', '.join(FORMATS)}); subfolders are not searched")
    return sorted(found, key=lambda each: _numbered(each.name))


def _numbered(name: str) -> list[str | int]:
    """A sort key by which 2 comes before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def opened(path: Path) -> Path | BinaryIO:
    """Return the object for Pillow to open: the file itself, or the content of a pipe (`-` is the standard input).

    Raises:
        ImageError: the file does not exist, is empty, or cannot be read.

    """
    try:
        if path == STANDARD_INPUT:
            return _content(path, sys.stdin.buffer)
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            if status.st_size == 0:
                raise ImageError(f"{path} is empty")
            with path.open("rb"):
                return path
        with path.open("rb") as pipe:
            return _content(path, pipe)
    except FileNotFoundError:
        raise ImageError(f"there is no {path}") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def _content(path: Path, stream: BinaryIO) -> BinaryIO:
    content = stream.read(MOST_BYTES + 1)
    if not content:
        raise ImageError(f"{path} is empty")
    if len(content) > MOST_BYTES:
        raise ImageError(f"{path} has more than {MOST_BYTES:,} bytes")
    return io.BytesIO(content)
