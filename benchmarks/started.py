"""`python -m train` up to its first step or its result: the program that `benchmarks.startup` runs and times.

    python -m benchmarks.started "first step"|result [OPTIONS OF TRAIN]

The last line on stderr is an object of marks: the time of the processor at the end of each phase, in seconds.
"""

import contextlib
import functools
import json
import os
import resource
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

from train.commands.cli import main
from train.host import program_cache

marks: dict[str, float] = {}


def mark(name: str) -> None:
    """Record the processor time so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    marks[name] = used.ru_utime + used.ru_stime


def between(module: ModuleType, name: str, before: str, after: str) -> None:
    """Wrap a function so that the beginning and the end of its calls are marked."""
    function = getattr(module, name)

    @functools.wraps(function)
    def marked(*arguments: Any, **options: Any) -> Any:
        mark(before)
        result = function(*arguments, **options)
        mark(after)
        return result

    setattr(module, name, marked)


def leave(name: str) -> NoReturn:
    """Print the marks, and end the process."""
    mark(name)
    print(json.dumps(marks), file=sys.stderr, flush=True)
    os._exit(0)


def one_step(plan: Any, programs: Any, state: Any, position: Any) -> None:
    """A stand-in for the training loop: one step, then the end of the process."""
    import jax  # not before the program's own imports

    order = programs.shuffle(jax.numpy.int32(1))
    jax.block_until_ready(programs.train(state, plan.train, order, (jax.numpy.int32(0), jax.numpy.int32(1))))
    leave("first step")


@contextlib.contextmanager
def around(end: str) -> Iterator[None]:
    """The context of the command, in which compiled programs are kept and the phases are marked."""
    with program_cache.kept():
        from train.commands import train
        from train.runs import terminal
        from train.training import loop

        between(train, "load", "imports", "data")
        between(loop, "compile_programs", "setting up", "programs")
        if end == "first step":
            loop.run = one_step  # pyright: ignore[reportAttributeAccessIssue]
        terminal.print_result = lambda *_: leave("result")
        yield


if __name__ == "__main__":
    _, end, *arguments = sys.argv
    sys.exit(main(arguments, functools.partial(around, end)))
