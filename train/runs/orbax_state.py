"""Reading and writing the training state with Orbax, in this process alone; system errors are raised as OSError."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from train.host import absl_log
from train.training.step import TrainState


def write(path: Path, state: TrainState) -> None:
    """Write a state with arrays on the host to a folder."""
    with _checkpointer() as (ocp, checkpointer):
        checkpointer.save(path.absolute(), args=ocp.args.StandardSave(state))


def read(path: Path, target: TrainState) -> TrainState:
    """Read a state in the form of `target`; damage is not detected."""
    with _checkpointer() as (ocp, checkpointer):
        return checkpointer.restore(path.absolute(), args=ocp.args.StandardRestore(target))


@contextlib.contextmanager
def _checkpointer() -> Iterator[tuple[Any, Any]]:
    """A context with Orbax and a checkpointer for arrays on the host, in this process alone."""
    with quietly() as ocp:
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
        )
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield ocp, checkpointer


@contextlib.contextmanager
def quietly() -> Iterator[Any]:
    """A context with Orbax, whose import is slow, and without its log, since errors are raised as exceptions."""
    import orbax.checkpoint as ocp

    try:
        with absl_log.only(logging.CRITICAL):
            yield ocp
    except ValueError as error:  # Orbax wraps the system's errors in text
        code = re.search(r"\[os_error_code='(\d+)'\]", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
