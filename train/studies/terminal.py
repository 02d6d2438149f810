"""A finding on the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from train.studies.study import Finding


def show(console: Console, name: str, finding: Finding, seconds: float, folder: Path) -> None:
    """Prints the table, the verdict and where the files are."""
    table = RichTable(box=box.SIMPLE, title=f"{name}: {finding.headline}", title_justify="left")
    for i, column in enumerate(finding.table.header):
        table.add_column(column, justify="right" if i else "left")
    for row in finding.table.rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"{finding.verdict}: {finding.summary}")
    console.print(f"{seconds:.0f} s; results and figure in {folder}\n", soft_wrap=True)
