"""Draw a picture of each benchmark from its saved results.

    python -m benchmarks.plots [--folder .bench] [--to docs/performance]

It reads NAME.json in the folder, as `--json` writes it, and writes NAME.png; benchmarks without a picture are skipped.
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
    """Draw a picture of each benchmark from its saved results."""

    folder: Path = Path(".bench")
    """Folder of the benchmarks' JSON files."""
    to: Path = Path("docs/performance")
    """Folder of the pictures."""


def main(options: Options) -> None:
    """Draw the pictures and print their paths."""
    runs = load_folder(options.folder)
    options.to.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        if name in runs:
            path = options.to / f"{name}.png"
            draw(path, runs[name].records)
            print(path)


if __name__ == "__main__":
    main(tyro.cli(Options))
