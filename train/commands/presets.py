"""`python -m train presets`: the presets and their results."""

from collections.abc import Sequence
from statistics import fmean

from rich import box
from rich.table import Table

from train.commands.options import Presets
from train.config import options
from train.config.presets import RECORDS
from train.config.sections import PRESETS, Config
from train.host.console import Console

NOTES = (
    "Test accuracy: mean, lowest and highest over the seeds from 0 on, or from 100 on where there are ten. Seconds: "
    "training time on 2 CPU cores. Each dataset is downloaded once; or pass --data-dir DIR, the folder with its own "
    "files. Other options on the command line take precedence over the preset.",
    "Not measured on Fashion-MNIST. Measured on 10,000 training and 2,000 test images of CIFAR-10 that had been "
    "compressed as JPEG: expect a higher accuracy, and five times the seconds, with all 50,000.",
)


def presets(_: Presets) -> None:
    """Print the presets."""
    console = Console(highlight=False)
    console.print(table())
    for text in (*NOTES, *map(describe, PRESETS)):
        console.print(f"\n{text}", markup=False)


def table() -> Table:
    """One row per preset; the heading of the first column and its cells form the command."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_lines=True)
    shown.add_column("python -m train\n--preset", no_wrap=True)
    shown.add_column("network\ndata")
    shown.add_column("test\naccuracy", justify="right", no_wrap=True)
    shown.add_column("seconds", justify="right", no_wrap=True)
    for name, (network, data, accuracies, seconds, _) in RECORDS.items():
        shown.add_row(name, f"{network}\n{data}", expected(accuracies), "–" if seconds is None else str(seconds))
    return shown


def expected(accuracies: Sequence[float]) -> str:
    r"""Format the mean, the range and the number of seeds.

    Example:
        >>> expected((97.0, 98.5)), expected(()), expected((100.0, 100.0))
        ('97.75%\n97.00–98.50\n2 seeds', 'not measured', '100.00%\n2 seeds')

    """
    if not accuracies:
        return "not measured"
    low, high = min(accuracies), max(accuracies)
    between = [f"{low:.2f}–{high:.2f}"] if low < high else []
    return "\n".join([f"{fmean(accuracies):.2f}%", *between, f"{len(accuracies)} seeds"])


def describe(name: str) -> str:
    """Describe a preset by the options that it sets.

    Example:
        >>> describe("default")
        'default: no options'

    """
    return f"{name}: {' '.join(difference(PRESETS[name])) or 'no options'}"


def difference(config: Config) -> list[str]:
    """The options in which a configuration differs from the default, as on the command line."""
    return [option.typed for option in options.listed(config) if not option.usual]
