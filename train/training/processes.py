"""Processes that train together: connecting them, sharing errors, and agreeing when to stop."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from train.config.sections import DeviceConfig
from train.host.errors import InterruptedRunError, UsageError

NOTE = 512  # bytes
FINE, FAILED = "=", "!"
PATIENCE = 60  # seconds that the first process to end waits for the others


class OtherProcessError(UsageError):
    """Another process has failed, and all processes know it."""


class LostProcessError(UsageError):
    """Another process has ended or does not answer."""


def first() -> bool:
    """True if this is the process that writes and prints."""
    return jax.process_index() == 0


def several() -> bool:
    """True if there is more than one process."""
    return jax.process_count() > 1


@contextlib.contextmanager
def connected(options: DeviceConfig) -> Iterator[None]:
    """A context in which the processes of a run are connected.

    Raises:
        UsageError: the options contradict each other, or the processes cannot connect.

    """
    if not options.distributed:
        given = {"coordinator": options.coordinator, "num-processes": options.num_processes}
        for name, value in (given | {"process-id": options.process_id}).items():
            if value is not None:
                raise UsageError(f"--{name} is for several processes: pass --distributed, too")
        yield
        return
    if options.process_timeout < 1:
        raise UsageError(f"--process-timeout must be at least 1 second; got {options.process_timeout}")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    try:
        jax.distributed.initialize(
            coordinator_address=options.coordinator,
            num_processes=options.num_processes,
            process_id=options.process_id,
            heartbeat_timeout_seconds=options.process_timeout,
            shutdown_timeout_seconds=PATIENCE,
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UsageError(
            f"--distributed did not find the other processes: {str(error).splitlines()[0]} Under SLURM, Open MPI, "
            "Kubernetes and on TPU pods it needs nothing more; elsewhere pass --coordinator HOST:PORT (of process 0), "
            "--num-processes and --process-id"
        ) from error
    try:
        yield
    except (LostProcessError, KeyboardInterrupt):
        raise  # without waiting for processes that have ended
    except BaseException:
        jax.distributed.shutdown()
        raise
    jax.distributed.shutdown()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A context in which a failure of one process stops all; the others learn of it at their next `exchange`.

    Raises:
        LostProcessError: another process has ended, so nothing can be computed together.

    """
    if not several():
        yield
        return
    try:
        yield
    except (OtherProcessError, InterruptedRunError):
        raise  # all processes know
    except jax.errors.JaxRuntimeError as error:
        raise LostProcessError(
            f"computing together failed, probably since another process is gone: {str(error).splitlines()[0]}"
        ) from error
    except Exception as error:
        _gather(FAILED + (str(error) or type(error).__name__))
        raise


def exchange(note: str = "") -> list[str]:
    """Exchange notes: return the note of each process, by its number.

    Every process must call this equally often; each waits for the others.

    Raises:
        OtherProcessError: one of them has failed.

    """
    if not several():
        return [note]
    notes = _gather(FINE + note)
    for process, said in enumerate(notes):
        if said.startswith(FAILED):
            raise OtherProcessError(f"process {process} failed, and the others stop with it: {said[1:]}")
    return [said[1:] for said in notes]


def agree(what: str, digest: Callable[[], str]) -> None:
    """Check that something is the same in all processes, by its digest; a single process computes none.

    Raises:
        UsageError: the digests differ.

    """
    digests = exchange(digest()) if several() else []
    for process, other in enumerate(digests):
        if other != digests[0]:
            raise UsageError(f"{what} of process {process} are not those of process 0: start all with the same")


def greatest(number: int) -> int:
    """The greatest number among those of the processes."""
    return max(int(note) for note in exchange(str(number)))


def _gather(note: str) -> list[str]:
    content = note.encode()[:NOTE]
    row = np.zeros(NOTE, np.uint8)
    row[: len(content)] = np.frombuffer(content, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(row))
    return [bytes(each).rstrip(b"\0").decode(errors="ignore") for each in rows]
