"""Reading files from a tar archive, compressed or not; damage is detected as far as the compression allows."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from train.data import forms

_OPENERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_CHUNK = 1 << 20  # bytes


class ArchiveError(ValueError):
    """An archive is damaged, or not an archive."""


def unpack(archive: Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of the files with these names, in any folder of an archive, without writing to the disk.

    The archive is read to its end, beyond its last file, since the checksum of the whole is there.

    Raises:
        ArchiveError: the archive is damaged, or not an archive.

    """
    found: dict[str, bytes] = {}
    with archive.open("rb") as file:
        start = file.read(64)
    try:
        with cast(BinaryIO, _OPENERS.get(start[:2], open)(archive, "rb")) as stream:
            try:
                with tarfile.open(fileobj=stream, mode="r:") as opened:
                    for member in opened:
                        name = PurePosixPath(member.name).name
                        content = opened.extractfile(member) if member.isfile() and name in names else None
                        if content is not None:
                            found[name] = content.read()
            finally:  # a wrong checksum is reported rather than the errors that follow from it
                while stream.read(_CHUNK):
                    pass
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, zlib.error, lzma.LZMAError) as error:
        form = None if start[:2] in _OPENERS else forms.recognised(start)
        reason = f"this is {form}" if form else f"the archive is damaged or cut short ({error}); fetch it again"
        raise ArchiveError(f"{archive}: {reason}") from error
    return found
