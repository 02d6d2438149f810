"""The training of a run, with its records, checkpoints and output, until its end or a signal."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from train.host import program_cache
from train.host.console import say
from train.host.errors import InterruptedRunError
from train.host.interruption import Interruption
from train.runs import results, stopping, tensorboard, terminal
from train.runs.keeping import Keeper, out_of_patience
from train.runs.run import Run, Start
from train.training import loop, processes
from train.training.step import TrainState


class Trained(NamedTuple):
    """The result of the training of a run."""

    state: TrainState
    progress: list[loop.Progress]
    epochs: list[loop.Epoch]
    compile_seconds: float = 0.0


def learn(run: Run, start: Start, interruption: Interruption) -> Trained:
    """Train from the start to the end, with records and checkpoints; do nothing if the run is finished.

    Raises:
        InterruptedRunError: it was told to stop, and has saved its state.

    """
    plan, patience = run.plan, run.config.run.patience
    state, progress, epochs = start.state, list(start.progress), list(start.epochs)
    if start.position.epoch > plan.last_epoch or out_of_patience(epochs, patience):
        say(run.console, f"{run.folder} is finished: nothing is left to train; its results are written again")
        return Trained(state, progress, epochs)
    with run.console.status("compiling"):
        programs = loop.compile_programs(plan, state)
    program_cache.seal()  # now, since a run may be killed
    keeper = Keeper(run.writer, run.config.run, run.dataset.card, run.identify(), start.saved)
    snapshot = None
    with _listeners(run, start) as listeners:
        processes.exchange()  # wait until all have compiled, and none failed
        for snapshot in loop.run(plan, programs, state, start.position):
            event = snapshot.event
            progress += [event] if isinstance(event, loop.Progress) else []
            epochs += [event] if isinstance(event, loop.Epoch) else []
            for listen in listeners:
                listen(event)
            keeper.keep(snapshot, epochs)
            if number := processes.greatest(interruption.signal or 0):
                keeper.save(snapshot)
                processes.exchange()
                said = stopping.after(run.folder, event.step) if processes.first() else ""
                raise InterruptedRunError(said, 128 + number)
            if isinstance(event, loop.Epoch) and out_of_patience(epochs, patience):
                break
    assert snapshot is not None  # an unfinished epoch always has steps left
    keeper.save(snapshot)
    return Trained(snapshot.state, progress, epochs, programs.seconds)


Listener = Callable[[loop.Progress | loop.Epoch], None]


@contextlib.contextmanager
def _listeners(run: Run, start: Start) -> Iterator[list[Listener]]:
    """The listeners of all events: files, terminal and optional ones; only the first process has any."""
    with contextlib.ExitStack() as stack:
        if not processes.first():
            yield []
            return
        done, options = start.saved or 0, run.config.run
        listeners: list[Listener] = [functools.partial(results.record, run.folder, run.dataset)]
        listeners.append(stack.enter_context(terminal.Monitor(run.console, run.plan, done)).show)
        if options.tensorboard:
            listeners.append(stack.enter_context(tensorboard.writer(run.folder / results.TENSORBOARD, done)))
        if options.profile:
            listeners.append(stack.enter_context(profile(run.folder / results.PROFILE)))
        yield listeners


@contextlib.contextmanager
def profile(folder: Path) -> Iterator[Listener]:
    """A listener that traces the steps between the first event and the second, which are already compiled."""
    tracing = iter((jax.profiler.start_trace, None))
    with contextlib.ExitStack() as stack:

        def listen(_: loop.Progress | loop.Epoch) -> None:
            stack.close()
            if next(tracing, None):
                stack.enter_context(jax.profiler.trace(str(folder)))

        yield listen
