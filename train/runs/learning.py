"""The training of a run: the loop, with its records, checkpoints and what a person sees, until its end or a signal."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from train.config.sections import RunConfig
from train.data import Dataset
from train.data.card import DataCard
from train.host import program_cache
from train.host.console import Console
from train.host.errors import InterruptedRunError
from train.host.interruption import Interruption
from train.runs import results, stopping, tensorboard, terminal
from train.runs.identity import Identity
from train.runs.keeping import Keeper, out_of_patience
from train.training import loop, processes
from train.training.plan import Plan
from train.training.step import TrainState


class Start(NamedTuple):
    """Where a run begins, or goes on."""

    state: TrainState
    position: loop.Position
    progress: list[loop.Progress]
    epochs: list[loop.Epoch]

    @property
    def saved(self) -> int | None:
        """The step whose checkpoint this is; None at the beginning."""
        return int(self.state.step) or None


class Trained(NamedTuple):
    """The result of the training of a run."""

    state: TrainState
    progress: list[loop.Progress]
    epochs: list[loop.Epoch]
    compile_seconds: float = 0.0


def learn(
    console: Console,
    options: RunConfig,
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    start: Start,
    data: Callable[[], DataCard],
    own: Identity,
    interruption: Interruption,
) -> Trained:
    """Trains from the start to the end, with records and checkpoints on the way; nothing where the end is reached.

    Raises:
        InterruptedRunError: it was told to stop, and has saved.

    """
    state, progress, epochs = start.state, list(start.progress), list(start.epochs)
    if start.position.epoch > plan.epochs or out_of_patience(epochs, options.patience):
        terminal.print_finished(console, folder)
        return Trained(state, progress, epochs)
    with console.status("compiling"):
        programs = loop.compile_programs(plan, state)
    program_cache.seal()  # now, since a run may be killed
    keeper = Keeper(folder, options, data, start.saved, writes=processes.first(), run=own)
    happening = None
    with _listeners(console, options, plan, folder, dataset, start) as listeners:
        processes.exchange()  # until all have compiled, and none failed
        for happening in loop.run(plan, programs, state, start.position):
            event = happening.event
            progress += [event] if isinstance(event, loop.Progress) else []
            epochs += [event] if isinstance(event, loop.Epoch) else []
            for listen in listeners:
                listen(event)
            keeper.keep(happening, epochs)
            if number := processes.greatest(interruption.signal or 0):
                keeper.save(happening)
                processes.exchange()
                said = stopping.after(folder, event.step) if processes.first() else ""
                raise InterruptedRunError(said, 128 + number)
            if isinstance(event, loop.Epoch) and out_of_patience(epochs, options.patience):
                break
    assert happening is not None  # of an epoch that is not over there is always something to do
    keeper.save(happening)
    return Trained(happening.state, progress, epochs, programs.seconds)


Listener = Callable[[loop.Progress | loop.Epoch], None]


@contextlib.contextmanager
def _listeners(
    console: Console, options: RunConfig, plan: Plan, folder: Path, dataset: Dataset, start: Start
) -> Iterator[list[Listener]]:
    """The listeners of every event: the files, the terminal, and the optional ones."""
    with contextlib.ExitStack() as stack:
        if not processes.first():
            yield []
            return
        listeners: list[Listener] = [functools.partial(results.record, folder, dataset)]
        listeners.append(stack.enter_context(terminal.Monitor(console, plan, start.saved or 0)).show)
        if options.tensorboard:
            listeners.append(stack.enter_context(tensorboard.writer(folder / results.TENSORBOARD, start.saved or 0)))
        if options.profile:
            listeners.append(stack.enter_context(profile(folder / results.PROFILE)))
        yield listeners


@contextlib.contextmanager
def profile(folder: Path) -> Iterator[Listener]:
    """A listener that traces what is computed between the first event and the second: some steps, compiled already."""
    tracing = iter((jax.profiler.start_trace, None))
    with contextlib.ExitStack() as stack:

        def listen(_: loop.Progress | loop.Epoch) -> None:
            stack.close()
            if next(tracing, None):
                stack.enter_context(jax.profiler.trace(str(folder)))

        yield listen
