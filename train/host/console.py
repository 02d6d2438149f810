"""The terminal, by rich; as for everything that is printed, `main` is told when nobody reads any more."""

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn

SILENCE = 10.0  # seconds outside a terminal after which a line says that the program is alive


class Console(RichConsole):
    """Rich's, which of itself would end the program with exit code 1 where the reader of a pipe has gone."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: lets it pass."""
        raise BrokenPipeError


def bar(console: RichConsole) -> Progress:
    """A bar between a task's description and its field `left`; it shows nothing outside a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None, complete_style="blue", finished_style="blue"),
        TextColumn("{task.fields[left]}", justify="right"),
        expand=True,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def say(console: RichConsole, text: str) -> None:
    """Prints text as it is: names and notes may hold what would be markup."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
