"""The training state as Orbax writes it, by this process alone, and with the errors of the system as such."""

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
    """Writes the arrays of the host to a folder."""
    with _checkpointer() as (ocp, checkpointer):
        checkpointer.save(path.absolute(), args=ocp.args.StandardSave(state))


def read(path: Path, target: TrainState) -> TrainState:
    """Reads them back, in the form of `target`; damage passes unnoticed."""
    with _checkpointer() as (ocp, checkpointer):
        return checkpointer.restore(path.absolute(), args=ocp.args.StandardRestore(target))


@contextlib.contextmanager
def _checkpointer() -> Iterator[tuple[Any, Any]]:
    """Orbax, and what saves and restores arrays of the host, in this process alone."""
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
