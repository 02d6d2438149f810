"""Checkpoints: written atomically, and verified bit by bit before they are used.

A checkpoint is a folder `step-<number>`:

    state/          the training state, as Orbax writes it
    position.json   its run, the position in that run, and the SHA-256 of the state's arrays
    SHA256SUMS      the digests of all other files, in the format of `sha256sum`

Orbax itself silently restores a damaged file (it did for each of a dozen flipped bits). So the folder's SHA256SUMS is
computed again before a restore and must equal the stored one byte for byte: no bit of any file, of a file's name or of
SHA256SUMS itself can differ. After the restore the digest of the arrays is checked as well. A checkpoint is written to
a temporary folder, which is renamed once everything is on the disk. Only checkpoints of the same run are restored: see
`train.runs.identity`.
"""

import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from train.data.card import DataCard
from train.host import files, typed
from train.host.errors import UsageError
from train.runs import orbax_state
from train.runs.identity import Identity
from train.training.loop import Position
from train.training.step import TrainState

SUMS, POSITION, STATE = "SHA256SUMS", "position.json", "state"
TEMPORARY = ".part-"
OVERHEAD = 1 << 16  # the most bytes of a checkpoint in addition to its arrays
_log = logging.getLogger(__name__)

Like = TrainState | Callable[[DataCard], TrainState]


class UnusableError(Exception):
    """A checkpoint cannot be used."""


class DamagedError(UnusableError):
    """A checkpoint has changed since it was written."""


class ForeignError(UnusableError):
    """A checkpoint belongs to another run."""


class NoCheckpointError(UsageError):
    """No checkpoint of a run can be used."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """The fields of position.json."""

    position: Position
    data: DataCard
    arrays: str  # their SHA-256
    run: Identity | None = None  # None in the checkpoints of earlier versions


class Checkpoint(NamedTuple):
    """The content of a checkpoint."""

    state: TrainState
    position: Position
    data: DataCard  # the data of the run


def save(
    parent: Path, state: TrainState, position: Position, data: DataCard, keep: int, run: Identity | None = None
) -> Path:
    """Write a checkpoint, and then remove all other checkpoints of this run except the newest intact ones.

    Args:
        parent: the folder of the checkpoints, which is made if it is missing.
        state: the state.
        position: its position in the run.
        data: the data of the run.
        keep: the number of checkpoints to keep, including this one.
        run: the identity of the run.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: it cannot be written; earlier checkpoints are unchanged.

    """
    host = jax.tree.map(np.asarray, jax.device_get(state))
    folder = parent / f"step-{int(host.step):09d}"
    part = parent / f"{TEMPORARY}{folder.name}-{os.getpid()}"
    try:
        with files.naming(folder):
            parent.mkdir(parents=True, exist_ok=True)
            for interrupted in parent.glob(f"{TEMPORARY}*"):
                shutil.rmtree(interrupted, ignore_errors=True)
            part.mkdir()
            _check_room(part / "room", host)
            orbax_state.write(part / STATE, host)
            contents = dataclasses.asdict(Contents(position, data, digest(host), run))
            (part / POSITION).write_text(json.dumps(contents), encoding="utf-8")
            (part / SUMS).write_text(sums(part), encoding="utf-8")
            files.sync_tree(part)
            if folder.exists():
                shutil.rmtree(folder)  # of the same step: equal, or damaged
            part.rename(folder)
            files.sync(parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _prune(folder, keep, run)
    return folder


def _prune(written: Path, keep: int, run: Identity | None) -> None:
    """Remove old and damaged checkpoints, but not those of other runs."""
    intact = [written]
    for folder in _folders(written.parent):
        if folder == written:
            continue
        try:
            verify(folder, run)
        except ForeignError:
            continue
        except DamagedError:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        intact.append(folder)
    for old in intact[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def newest(parent: Path, like: Like, run: Identity | None = None) -> Checkpoint | None:
    """Return the newest intact checkpoint of a folder, or None if there are no checkpoints; log unusable ones.

    Args:
        parent: the folder of the checkpoints.
        like: a state of the same form, as arrays or shapes, or a function from the data of the run to one.
        run: the run that it must belong to; None: any.

    Raises:
        NoCheckpointError: there are checkpoints, but none can be used.

    """
    folders = _folders(parent)
    for folder in folders:
        try:
            found = restore(folder, like, run)
        except UnusableError as error:
            _log.warning("%s; skipped", error)
            continue
        if folder != folders[0]:
            _log.warning("continuing from %s, the newest intact one", folder)
        return found
    if folders:
        raise NoCheckpointError(f"no checkpoint in {parent} is intact: nothing can be restored")
    return None


def restore(folder: Path, like: Like, run: Identity | None = None) -> Checkpoint:
    """Restore a checkpoint exactly.

    Raises:
        DamagedError: it has changed since it was written.
        ForeignError: it belongs to another run.

    """
    contents = verify(folder, run)
    shapes = like if isinstance(like, TrainState) else like(contents.data)
    target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
    try:
        state = orbax_state.read(folder / STATE, target)
    except (ValueError, KeyError, OSError) as error:
        raise DamagedError(f"{folder} does not contain a state of this network and optimizer: {error}") from error
    if digest(state) != contents.arrays:
        raise DamagedError(f"{folder} is damaged: its arrays are not those that were written")
    return Checkpoint(jax.tree.map(jax.numpy.asarray, state), contents.position, contents.data)


def verify(folder: Path, run: Identity | None = None) -> Contents:
    """Verify every file of a checkpoint, and return the fields of its position.json.

    Raises:
        DamagedError: a file has changed since it was written.
        ForeignError: it belongs to another run.

    """
    try:
        written = (folder / SUMS).read_bytes()
        present = sums(folder).encode()
    except OSError as error:
        raise DamagedError(f"{folder} is damaged: {error}") from error
    if written != present:
        differing = sorted({line.rpartition(b"  ")[2] for line in {*written.splitlines()} ^ {*present.splitlines()}})
        names = ", ".join(name.decode(errors="replace") for name in differing) or SUMS
        raise DamagedError(f"{folder} is damaged: {names} changed after it was written")
    try:
        stored = typed.parse((folder / POSITION).read_bytes())
        position = stored.get("position") if isinstance(stored, dict) else None
        if isinstance(position, dict) and "step" in position:  # as earlier versions call it
            position["epoch_step"] = position.pop("step")
        contents = typed.read(Contents, stored, noun="field")
    except (OSError, ValueError) as error:
        raise DamagedError(f"{folder} is damaged: {POSITION}: {error}") from error
    difference = run and run.difference(contents.run)
    if difference:
        raise ForeignError(f"{folder} belongs to another run: {difference}")
    return contents


def sums(folder: Path) -> str:
    """The SHA-256 of every file in a folder, as `sha256sum` prints them, sorted by name."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return "".join(f"{files.sha256(folder / name)}  {name}\n" for name in names if name != SUMS)


def digest(tree: Any) -> str:  # noqa: ANN401
    """The SHA-256 of a tree's arrays: names, shapes, types and bytes."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _folders(parent: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    if not parent.is_dir():
        return []
    return sorted((path for path in parent.iterdir() if re.fullmatch(r"step-\d{9,}", path.name)), reverse=True)


def _check_room(path: Path, state: TrainState) -> None:
    """Raise an OSError if the disk has no room for a state.

    Orbax would find out itself, but with tracebacks from its threads on stderr, some of them after its error.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + OVERHEAD
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # not on this system
            pass
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # others: not on this file system
                raise
    path.unlink()
