"""`python -m train` up to its result: the program that `benchmarks.startup` runs and times.

    python -m benchmarks.started BEGAN [OPTIONS OF TRAIN]

BEGAN is the time at which the process was started, in seconds as `time.time()` gives them. The last line on stderr is
an object of marks: at the end of each phase, the seconds of the processor and those on the clock so far.
"""

import contextlib
import functools
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from train.commands.cli import main
from train.host import program_cache

marks: dict[str, tuple[float, float]] = {}


def mark(name: str, began: float) -> None:
    """Record the seconds so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    marks[name] = used.ru_utime + used.ru_stime, time.time() - began


def between(module: ModuleType, name: str, before: str, after: str, began: float) -> None:
    """Wrap a function so that the beginning and the end of its calls are marked."""
    function = getattr(module, name)

    @functools.wraps(function)
    def marked(*arguments: Any, **options: Any) -> Any:
        mark(before, began)
        result = function(*arguments, **options)
        mark(after, began)
        return result

    setattr(module, name, marked)


@contextlib.contextmanager
def around(began: float) -> Iterator[None]:
    """The context of the command: compiled programs are kept, the phases are marked, and the result is the end."""
    with program_cache.kept():
        from train.commands import train
        from train.runs import terminal
        from train.training import loop

        def leave(*_: object) -> None:
            mark("training", began)
            print(json.dumps(marks), file=sys.stderr, flush=True)
            os._exit(0)

        between(train, "load", "imports", "data", began)
        between(loop, "compile_programs", "setting up", "programs", began)
        terminal.print_result = leave
        yield


if __name__ == "__main__":
    _, began, *arguments = sys.argv
    sys.exit(main(arguments, functools.partial(around, float(began))))
