"""The terminal output of a study: its progress and its finding."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from train.host.console import WithBar
from train.host.words import count
from train.studies.study import Finding


class Monitor(WithBar):
    """Shows how many of a study's networks are trained: a bar in a terminal, occasional lines elsewhere.

    Args:
        console: where to print.
        title: the name of the study.
        networks: the number of networks that it trains.
        clock: returns seconds.

    """

    def __init__(
        self, console: Console, title: str, networks: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console, clock)
        self._title, self._networks, self._done = title, networks, 0
        self._task = self._add_task(title, networks)

    def __enter__(self) -> Self:
        if not self._console.is_terminal:
            self._say(f"{self._title}: {count(self._networks, 'network')} to train")
        return super().__enter__()

    def advance(self, networks: int) -> None:
        """Count networks that have been trained."""
        self._done += networks
        left = self._left(self._done, self._networks - self._done)
        self._say_now_and_then(f"{self._title}: {self._count()} networks, {left}")
        self._update(self._task, self._done, [self._title], f"{self._count()}  {left}")

    def _count(self) -> str:
        return f"{self._done}/{self._networks}"


def show(console: Console, name: str, finding: Finding, seconds: float, folder: Path) -> None:
    """Print the table, the verdict and the folder of the files."""
    table = RichTable(box=box.SIMPLE, title=f"{name}: {finding.headline}", title_justify="left")
    for i, column in enumerate(finding.table.header):
        table.add_column(column, justify="right" if i else "left")
    for row in finding.table.rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"{finding.verdict}: {finding.summary}")
    console.print(f"{seconds:.0f} s; results and figure in {folder}\n", soft_wrap=True)
