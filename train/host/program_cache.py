"""A cache of compiled programs, in files that are verified before they are used.

JAX writes them in place, so a kill in the middle leaves a truncated file, which JAX reads, warns about and keeps at
every start. Here each program has its SHA-256 in a file beside it, written once the program is complete. At the next
start, programs that do not match are silently removed and compiled again.
"""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from train.host import cache_folder, files

FOLDER, SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
PROGRAM, DIGEST = "-cache", ".sha256"  # the ending of JAX's file names, and the one that is added here
MOST_BYTES = 64 << 20  # the size of the cache; the oldest programs beyond it are removed


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """A context in which compiled programs are cached; enter it before JAX is imported.

    If JAX_COMPILATION_CACHE_DIR is set, JAX uses that folder, and nothing is done here. If the folder cannot be
    written, programs are compiled at every start.
    """
    folder = default_folder()
    if FOLDER in os.environ or not _ready(folder):
        yield
        return
    verify(folder)
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault(SECONDS, "0")
    with warnings.catch_warnings():
        # With a full disk, or when another process has removed a program, it is simply compiled.
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
        try:
            yield
        finally:
            seal()


def default_folder() -> Path:
    """The folder `programs` in the cache folder."""
    return cache_folder.default_folder() / "programs"


def seal() -> None:
    """Write the digests of programs that have none yet, if this module keeps the cache."""
    folder = default_folder()
    if os.environ.get(FOLDER) != str(folder):
        return
    for path in folder.glob(f"*{PROGRAM}"):
        digest = path.with_name(path.name + DIGEST)
        with contextlib.suppress(OSError):  # without a digest the program is compiled again
            if not digest.exists():
                digest.write_text(files.sha256(path), encoding="ascii")


def verify(folder: Path) -> None:
    """Remove programs that have changed since they were sealed, and the oldest ones if there are too many."""
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
    """Make the folder, and test whether files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
