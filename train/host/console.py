"""The terminal, by rich; as for everything that is printed, `main` is told when nobody reads any more."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn

from train.host.words import duration

SILENCE = 10.0  # seconds outside a terminal after which a line says that the program is alive


class Console(RichConsole):
    """Rich's, which of itself would end the program with exit code 1 where the reader of a pipe has gone."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: lets it pass."""
        raise BrokenPipeError


class WithBar:
    """A context manager that shows a bar, with the field `left` of its task behind it; outside a terminal, lines.

    Args:
        console: where to.
        clock: seconds.

    """

    def __init__(self, console: RichConsole, clock: Callable[[], float]) -> None:
        self._console, self._clock = console, clock
        self._start = self._said = clock()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, complete_style="blue", finished_style="blue"),
            TextColumn("{task.fields[left]}", justify="right"),
            expand=True,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def _left(self, done: int, todo: int) -> str:
        """How long the rest will take, if it goes on as it went so far."""
        return f"{duration((self._clock() - self._start) / done * todo)} left"

    def _say(self, text: str) -> None:
        self._said = self._clock()
        say(self._console, text)

    def _say_now_and_then(self, text: str) -> None:
        """A line where there is no bar, and nothing was said for a while."""
        if not self._console.is_terminal and self._clock() - self._said >= SILENCE:
            self._say(text)


def say(console: RichConsole, text: str) -> None:
    """Prints text as it is: names and notes may hold what would be markup."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
