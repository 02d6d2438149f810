"""Compiled programs kept from one start to the next, in files that are verified before they are used.

JAX writes them in place, so that a kill in the middle leaves a torn one, which it then reads, warns of and keeps at
every start. Here each has its SHA-256 in a file beside it, written once the program is whole; what does not match is
removed at the next start and compiled anew, without a word.
"""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from train.host import cache_folder, files

FOLDER, SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
PROGRAM, DIGEST = "-cache", ".sha256"  # how JAX's names end, and what is added to them here
MOST_BYTES = 64 << 20  # what is more than this goes, the oldest first


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """A context in which compiled programs are found again and kept; to be entered before JAX is imported.

    Where JAX_COMPILATION_CACHE_DIR is set, that folder is used, as JAX itself does, and nothing is done here. Where
    the folder cannot be written, programs are compiled at every start.
    """
    folder = default_folder()
    if FOLDER in os.environ or not _ready(folder):
        yield
        return
    verify(folder)
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault(SECONDS, "0")
    with warnings.catch_warnings():
        # A full disk, or a program removed by another process meanwhile: it is compiled, and that is all.
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
        try:
            yield
        finally:
            seal()


def default_folder() -> Path:
    """`programs` in the folder of all caches."""
    return cache_folder.default_folder() / "programs"


def seal() -> None:
    """Writes the digests of the programs that have none yet, where it is this module that keeps them."""
    folder = default_folder()
    if os.environ.get(FOLDER) != str(folder):
        return
    for path in folder.glob(f"*{PROGRAM}"):
        digest = path.with_name(path.name + DIGEST)
        with contextlib.suppress(OSError):  # without a digest the program is compiled anew, no more
            if not digest.exists():
                digest.write_text(files.sha256(path), encoding="ascii")


def verify(folder: Path) -> None:
    """Removes every program that is not, byte for byte, what was sealed; and the oldest where there are too many."""
    kept = 0
    for path in sorted(folder.glob(f"*{PROGRAM}"), key=_age, reverse=True):
        with contextlib.suppress(OSError):
            kept += path.stat().st_size
            if kept > MOST_BYTES or not _sound(path):
                path.unlink(missing_ok=True)
    for digest in folder.glob(f"*{PROGRAM}{DIGEST}"):
        with contextlib.suppress(OSError):
            if not digest.with_name(digest.name.removesuffix(DIGEST)).exists():
                digest.unlink(missing_ok=True)


def _sound(path: Path) -> bool:
    try:
        return path.with_name(path.name + DIGEST).read_bytes() == files.sha256(path).encode()
    except OSError:
        return False


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has removed it
        return 0.0


def _ready(folder: Path) -> bool:
    """Makes the folder, and tries whether files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
