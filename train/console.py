"""The terminal, by rich; as for everything that is printed, `main` is told when nobody reads any more."""

from rich.console import Console as RichConsole


class Console(RichConsole):
    """Rich's, which of itself would end the program with exit code 1 where the reader of a pipe has gone."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: lets it pass."""
        raise BrokenPipeError
