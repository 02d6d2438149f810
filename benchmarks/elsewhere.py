"""A separate process for code that cannot run in this one, such as Keras with another backend.

    process = Elsewhere({"KERAS_BACKEND": "torch"})
    step = process.prepare("benchmarks.keras_torch:norm_step", case)  # the child makes it, from what can be pickled
    step()  # the child calls it once; returns when it is done
    process.run("operator:add", 1, 2)  # a plain call; its result comes back

A step is requested by one byte and answered by one. The round trip takes 5 to 60 microseconds (`round_trip` measures
it), which are added to the time of the step. On a GPU the step must wait for its results before it returns, so its
calls cannot be queued like those of this process.
"""

import atexit
import contextlib
import importlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

_ROOT = Path(__file__).parents[1]
_STEP, _CALL, _DONE, _FAILED = b"s", b"c", b"d", b"f"


class Elsewhere:
    """A Python process that runs one request at a time; it ends with this process, or when closed.

    Args:
        environment: environment variables to set in addition to those of this process.

    """

    def __init__(self, environment: Mapping[str, str]):
        path = os.pathsep.join([str(_ROOT), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.elsewhere"],
            env=os.environ | {"PYTHONPATH": path} | dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._prepared = 0
        atexit.register(self.close)

    def run(self, function: str, *arguments: object) -> object:
        """The result of `module:function` in the child; arguments and result must be picklable.

        Raises:
            RuntimeError: the function failed, or the process has ended.

        """
        return self._ask(_CALL + pickle.dumps((function, arguments, False)))

    def prepare(self, factory: str, *arguments: object) -> Callable[[], None]:
        """A function that makes the child call the result of `module:function` once, and waits for it.

        The child holds one step. The next prepared step replaces it and frees the memory of its arrays.
        """
        self._ask(_CALL + pickle.dumps((factory, arguments, True)))
        self._prepared += 1
        return partial(self._step, self._prepared)

    def close(self) -> None:
        """End the process."""
        atexit.unregister(self.close)
        for pipe in self._pipes():
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                pipe.close()  # it ends when there is nothing more to read
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _step(self, number: int) -> None:
        if number != self._prepared:
            raise RuntimeError("another step has taken this one's place in its process: prepare it again")
        self._ask(_STEP)

    def _ask(self, message: bytes) -> object:
        requests, answers = self._pipes()
        try:
            requests.write(message)
            requests.flush()
            answer = answers.read(1)
        except (BrokenPipeError, ValueError):  # ValueError: the pipe is closed
            answer = b""
        if answer == _DONE:
            return None if message == _STEP else pickle.load(answers)
        if answer == _FAILED:
            raise RuntimeError(f"failed in a process of its own:\n{pickle.load(answers)}")
        code = self._process.wait()
        raise RuntimeError(f"the process for it has ended, with exit code {code}; what it said is above")

    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        return requests, answers  # pyright: ignore[reportReturnType]  (of bytes, since no encoding was asked for)


def round_trip(process: Elsewhere, calls: int = 200) -> float:
    """The median time of an empty step, in seconds."""
    step = process.prepare("functools:partial", int)
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return sorted(times)[calls // 2]


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The loop of the child, which serves requests until the pipe is closed."""
    step: Callable[[], object] | None = None
    while kind := requests.read(1):
        try:
            if kind == _STEP:
                assert step is not None
                step()
                answer = _DONE
            else:
                name, arguments, is_factory = pickle.load(requests)
                if is_factory:
                    step = None  # its arrays go before those of the next are made
                module, _, function = name.partition(":")
                result = getattr(importlib.import_module(module), function)(*arguments)
                step, result = (result, None) if is_factory else (step, result)
                answer = _DONE + pickle.dumps(result)
        except Exception:
            import traceback

            answer = _FAILED + pickle.dumps(traceback.format_exc())
        answers.write(answer)
        answers.flush()


def _main() -> None:
    """Reserve stdout for answers: everything else that is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
