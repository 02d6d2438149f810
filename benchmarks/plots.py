"""A picture of each benchmark, from what it saved.

    python -m benchmarks.plots [--folder .bench] [--to docs/performance]

Reads NAME.json in the folder, as `--json` writes it, and writes NAME.png; what has no picture is passed over.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.drawings import bars, lines
from benchmarks.saved import load_folder

DRAWINGS = {
    "exactness": lines.exactness,
    "layer": lines.layer,
    "train_step": bars.train_step,
    "time_to_accuracy": lines.time_to_accuracy,
    "memory": bars.memory,
    "startup": bars.startup,
    "collectives": bars.collectives,
    "accelerators": bars.accelerators,
    "inference": bars.inference,
}


@dataclass(frozen=True)
class Options:
    """A picture of each benchmark, from what it saved."""

    folder: Path = Path(".bench")
    """Where the benchmarks' JSON files are."""
    to: Path = Path("docs/performance")
    """Where the pictures go."""


def main(options: Options) -> None:
    """Reads, draws, says where the pictures are."""
    runs = load_folder(options.folder)
    options.to.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        if name in runs:
            path = options.to / f"{name}.png"
            draw(path, runs[name].records)
            print(path)


if __name__ == "__main__":
    main(tyro.cli(Options))
