"""Checkpoints: whole or not there, verified to the bit before they are used.

A checkpoint is a folder `step-<number>`:

    state/          the training state, as Orbax writes it
    position.json   how far the run had come, and the SHA-256 of the state's arrays
    SHA256SUMS      of every other file, in the form of `sha256sum`

Orbax itself restores a damaged file without a word (it did with every one of a dozen flipped bits). So the folder's
SHA256SUMS is made anew before a restore and must be the one that is there, byte for byte: no bit of any file, of a
file's name or of SHA256SUMS itself can differ. After the restore the arrays' own digest is checked as well. A
checkpoint is written to a temporary folder, which is renamed once everything is on the disk.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from train import absl_log, files
from train.data_card import DataCard
from train.loop import Position
from train.step import TrainState

SUMS, POSITION, STATE = "SHA256SUMS", "position.json", "state"
TEMPORARY = ".part-"
OVERHEAD = 1 << 16  # bytes of a checkpoint beside its arrays, at most
_log = logging.getLogger(__name__)


class DamagedError(Exception):
    """A checkpoint is not what was written."""


class NoCheckpointError(Exception):
    """There are checkpoints, and none of them is sound."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    state: TrainState
    position: Position
    data: DataCard  # what the run learns from
    folder: Path

    @property
    def step(self) -> int:
        """Steps taken by then."""
        return int(self.state.step)


def save(parent: Path, state: TrainState, position: Position, data: DataCard, keep: int) -> Path:
    """Writes a checkpoint, and then removes all but the newest of its kind.

    Args:
        parent: the folder of such checkpoints; made where it is missing.
        state: what is saved.
        position: where that is.
        data: what the run learns from.
        keep: how many of the newest stay.

    Returns:
        the checkpoint's folder.

    Raises:
        OSError: it cannot be written; earlier checkpoints are untouched.

    """
    host = jax.tree.map(np.asarray, jax.device_get(state))
    folder = parent / f"step-{int(host.step):09d}"
    part = parent / f"{TEMPORARY}{folder.name}-{os.getpid()}"
    try:
        with files.naming(folder):
            parent.mkdir(parents=True, exist_ok=True)
            _remove_parts(parent)
            part.mkdir()
            _check_room(part / "room", host)
            _write_state(part / STATE, host)
            description = {
                "position": dataclasses.asdict(position),
                "data": dataclasses.asdict(data),
                "arrays": digest(host),
            }
            (part / POSITION).write_text(json.dumps(description), encoding="utf-8")
            (part / SUMS).write_text(sums(part), encoding="utf-8")
            files.sync_tree(part)
            if folder.exists():
                shutil.rmtree(folder)  # of the same step: the same, or damaged
            part.rename(folder)
            files.sync(parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in _folders(parent)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def newest(parent: Path, like: TrainState) -> Checkpoint | None:
    """The newest sound checkpoint of a folder; None where there is none at all. Damaged ones are named in the log.

    Args:
        parent: the folder of such checkpoints.
        like: a state of the same form, as arrays or shapes.

    Raises:
        NoCheckpointError: there are checkpoints, and all are damaged.

    """
    folders = _folders(parent)
    for folder in folders:
        try:
            found = restore(folder, like)
        except DamagedError as error:
            _log.warning("%s; it is not used", error)
            continue
        if folder != folders[0]:
            _log.warning("going on from %s, the newest that is sound", folder)
        return found
    _check_none(parent, folders)
    return None


def restore(folder: Path, like: TrainState) -> Checkpoint:
    """Reads a checkpoint back, to the bit.

    Raises:
        DamagedError: it is not what was written.

    """
    verify(folder)
    description = json.loads((folder / POSITION).read_text(encoding="utf-8"))
    target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    try:
        state = _read_state(folder / STATE, target)
    except (ValueError, KeyError, OSError) as error:
        raise DamagedError(f"{folder} does not hold a state of this network and optimiser: {error}") from error
    if digest(state) != description["arrays"]:
        raise DamagedError(f"{folder} is damaged: its arrays are not those that were written")
    position = description["position"]
    position["reports"] = tuple(tuple(report) for report in position["reports"])
    arrays = jax.tree.map(jax.numpy.asarray, state)
    return Checkpoint(arrays, Position(**position), _data(description), folder)


def data_of(parent: Path) -> DataCard | None:
    """What a run learns from, by its newest sound checkpoint; None where there is none at all.

    Raises:
        NoCheckpointError: there are checkpoints, and all are damaged.

    """
    folders = _folders(parent)
    for folder in folders:
        with contextlib.suppress(DamagedError):
            verify(folder)
            return _data(json.loads((folder / POSITION).read_text(encoding="utf-8")))
    _check_none(parent, folders)
    return None


def _check_none(parent: Path, damaged: list[Path]) -> None:
    if damaged:
        raise NoCheckpointError(f"no checkpoint in {parent} is sound: nothing can be restored")


def _data(description: dict[str, Any]) -> DataCard:
    card = DataCard(**description["data"])
    return dataclasses.replace(card, input_shape=tuple(card.input_shape), class_names=tuple(card.class_names))


def verify(folder: Path) -> None:
    """Raises DamagedError where a file of a checkpoint is not, byte for byte, what was written."""
    try:
        written = (folder / SUMS).read_bytes()
        present = sums(folder).encode()
    except OSError as error:
        raise DamagedError(f"{folder} is damaged: {error}") from error
    if written != present:
        differing = sorted({line.rpartition(b"  ")[2] for line in {*written.splitlines()} ^ {*present.splitlines()}})
        names = ", ".join(name.decode(errors="replace") for name in differing) or SUMS
        raise DamagedError(f"{folder} is damaged: {names} not as written")


def sums(folder: Path) -> str:
    """The SHA-256 of every file in a folder, as `sha256sum` prints them, sorted by name."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    digests = [(hashlib.sha256((folder / name).read_bytes()).hexdigest(), name) for name in names if name != SUMS]
    return "".join(f"{value}  {name}\n" for value, name in digests)


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


def _remove_parts(parent: Path) -> None:
    """Removes what an interrupted save left behind."""
    for path in parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _check_room(path: Path, state: TrainState) -> None:
    """Raises an OSError where the disk has no room for a state.

    Orbax would find out for itself, with tracebacks from its threads on stderr, some of them after its error.
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


def _write_state(path: Path, state: TrainState) -> None:
    with _checkpointer() as (ocp, checkpointer):
        checkpointer.save(path.absolute(), args=ocp.args.StandardSave(state))


def _read_state(path: Path, target: TrainState) -> TrainState:
    with _checkpointer() as (ocp, checkpointer):
        return checkpointer.restore(path.absolute(), args=ocp.args.StandardRestore(target))


@contextlib.contextmanager
def _checkpointer() -> Iterator[tuple[Any, Any]]:
    """Orbax, and what saves and restores arrays of the host, in this process alone."""
    with _quietly() as ocp:
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
        )
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield ocp, checkpointer


@contextlib.contextmanager
def _quietly() -> Iterator[Any]:
    """Orbax, imported (slow), without what it logs: what goes wrong comes as an exception, and is said once."""
    import orbax.checkpoint as ocp

    try:
        with absl_log.only(logging.CRITICAL):
            yield ocp
    except ValueError as error:  # Orbax wraps the system's errors in text
        code = re.search(r"\[os_error_code='(\d+)'\]", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
