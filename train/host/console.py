"""Output through rich: the console, a progress bar, and plain lines.

When the reader of a pipe has gone, a BrokenPipeError reaches `main`.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from train.host.words import duration

SILENCE = 10.0  # seconds without output, outside a terminal, after which a line shows that the program is alive
LEAST_BAR = 10  # characters; a narrower terminal shows the numbers without a bar


class Console(RichConsole):
    """Rich's console, without its own exit (with code 1) when the reader of a pipe has gone."""

    def on_broken_pipe(self) -> None:
        """Let the error pass; rich calls this while it handles it."""
        raise BrokenPipeError


class _Bar(ProgressColumn):
    """A bar of the width that is left, or nothing where that is too narrow."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = BarColumn(bar_width=None, complete_style="blue", finished_style="blue")

    def render(self, task: Task) -> ProgressBar | Text:
        """Return the bar of a task."""
        return self._bar.render(task) if task.fields["bar"] else Text()


class WithBar:
    """A context manager that shows a progress bar between a description and the time left; outside a terminal, lines.

    Args:
        console: where to print.
        clock: returns seconds.

    """

    def __init__(self, console: RichConsole, clock: Callable[[], float]) -> None:
        self._console, self._clock = console, clock
        self._start = self._said = clock()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            _Bar(),
            TextColumn("{task.fields[left]}", justify="right", table_column=Column(no_wrap=True)),
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

    def _add_task(self, description: str, total: int, done: int = 0) -> TaskID:
        return self._bar.add_task(description, total=total, completed=done, left="", bar=True)

    def _update(self, task: TaskID, done: int, descriptions: Sequence[str], left: str) -> None:
        """Show a task with the longest description that fits; the bar goes first, the time left last."""
        width = self._console.width - 2  # without the spaces between the columns
        bar = len(descriptions[0]) + LEAST_BAR + len(left) <= width
        fitting = (text for text in descriptions if len(text) + len(left) <= width)
        description = next(fitting, descriptions[-1])
        left = left if len(description) + len(left) <= width else ""
        self._bar.update(task, completed=done, description=description, left=left, bar=bar)

    def _left(self, done: int, todo: int) -> str:
        """The time that the rest will take at the speed so far."""
        return f"{duration((self._clock() - self._start) / done * todo)} left"

    def _say(self, text: str) -> None:
        self._said = self._clock()
        say(self._console, text)

    def _say_now_and_then(self, text: str) -> None:
        """Print a line where there is no bar, and nothing was printed for a while."""
        if not self._console.is_terminal and self._clock() - self._said >= SILENCE:
            self._say(text)


def say(console: RichConsole, text: str) -> None:
    """Print text as it is: names and notes may contain what rich would take for markup."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
