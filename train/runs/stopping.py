"""Messages for a run that is told to stop, and how to continue it."""

import shlex
import signal
import sys
from pathlib import Path

from rich.console import Console

from train.host.console import say


def answer(console: Console, number: signal.Signals) -> None:
    """Acknowledge a signal at once: in a terminal above the bar, elsewhere on stderr."""
    again = " (press Ctrl-C again to stop at once, without saving)" if number == signal.SIGINT else ""
    text = f"stopping: the run is saved at the next safe point{again}"
    if console.is_terminal:
        say(console, text)
    elif not console.quiet:
        print(text, file=sys.stderr, flush=True)


def end(console: Console, folder: Path) -> None:
    """Print how to continue when the process ends at once, and restore the terminal."""
    console.show_cursor(True)
    print(f"\n{at_once(folder)}", file=sys.stderr, flush=True)


def after(folder: Path, step: int) -> str:
    """The message when a run has been saved and stopped."""
    return f"stopped and saved at step {step:,}. {to_go_on(folder)}"


def at_once(folder: Path) -> str:
    """The message when a run has been stopped without saving."""
    return f"stopped at once: nothing has been saved since the last checkpoint. {to_go_on(folder)}"


def before_the_report(folder: Path) -> str:
    """The message when only the report is missing."""
    return f"stopped: the run is finished and saved, except for its report. To write it: {command('report', folder)}"


def to_go_on(folder: Path) -> str:
    """How to continue the run."""
    return f"To continue: {command('--resume', folder)}"


def command(what: str, folder: Path) -> str:
    """A command for the folder of a run, as it is typed."""
    return f"python -m train {what} {shlex.quote(str(folder))}"
