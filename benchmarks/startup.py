"""How long a person waits: for an import, for --help, and from the command to the result.

    python -m benchmarks.startup [--repeat 5] [--dataset mnist --data-dir DIR] [--json FILE] [--markdown]

Everything is measured in fresh processes. The first start has nothing compiled yet; the second finds the programs that
the first one kept. Seconds are processor time over all cores, since others use the machine as well, with wall-clock
seconds next to them. The smallest of several repetitions is shown, since disturbances can only add time. Short commands
take turns.
"""

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import harness

ROOT = Path(__file__).parents[1]
IMPORTS = ("import jax", "import jaxbn", "import flax.linen", "import jaxbn.linen")
COMMANDS = {
    "python alone": ["-c", "pass"],
    **{code: ["-c", code] for code in IMPORTS},
    "python -m train --help": ["-m", "train", "--help"],
}


@dataclass(frozen=True)
class Options:
    """Seconds of imports, of --help, and from the command to the result."""

    repeat: int = 5
    """How often each is measured."""
    dataset: Literal["mnist", "digits", "iris"] = "digits"
    """The data of the training program."""
    data_dir: Path | None = None
    """Folder with MNIST's files."""
    json: Path | None = None
    """Where to save the figures."""
    markdown: bool = False
    """Print the table for pasting into the documentation."""


@dataclass(frozen=True)
class Measured:
    """The seconds that one process took, and its stderr."""

    processor: float
    wall: float
    errors: str


def run(arguments: Sequence[str], cache: Path) -> Measured:
    """Run Python with arguments, with its caches in a folder.

    Raises:
        RuntimeError: the process failed.

    """
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    finished = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if finished.returncode:
        raise RuntimeError(f"{arguments[:2]} failed:\n{finished.stderr}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(used, wall, finished.stderr)


def fastest(measured: Iterable[Measured]) -> Measured:
    """The measurement with the least processor time."""
    return min(measured, key=lambda each: each.processor)


def starts(options: Options, folder: Path) -> dict[str, Measured]:
    """The first start, with nothing compiled, and the fastest of the following ones."""
    data = ["--data-dir", str(options.data_dir.absolute())] if options.data_dir else []
    command = ["--dataset", options.dataset, *data, "--runs-dir", str(folder / "runs"), "--name", "run", "--overwrite"]

    def start(cache: Path) -> Measured:
        return run(["-m", "benchmarks.started", str(time.time()), *command], cache)

    caches = [folder / f"cache{i}" for i in range(options.repeat)]
    return {"first start": fastest(map(start, caches)), "second start": fastest(start(caches[0]) for _ in caches)}


def phases(marks: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """The duration of each phase, from marks of the time so far: seconds of the processor, and on the clock."""
    ends = [(0.0, 0.0), *marks.values()]
    return {
        name: (after[0] - before[0], after[1] - before[1])
        for name, (before, after) in zip(marks, itertools.pairwise(ends), strict=True)
    }


def main(options: Options) -> None:
    """Measure, print, save."""
    rows: list[Sequence[str]] = []
    records: list[dict[str, Any]] = []

    def add(name: str, measured: Measured, **more: object) -> None:
        rows.append((name, f"{measured.processor:.2f}", f"{measured.wall:.2f}"))
        records.append({"name": name, "processor": measured.processor, "wall": measured.wall, **more})

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        turns = [[run(command, folder) for command in COMMANDS.values()] for _ in range(options.repeat)]
        for name, measured in zip(COMMANDS, zip(*turns, strict=True), strict=True):
            add(name, fastest(measured))
        for name, measured in starts(options, folder).items():
            parts = phases(json.loads(measured.errors.splitlines()[-1]))
            add(f"{name}, to the result on {options.dataset}", measured, phases=parts)
            for phase, (processor, wall) in parts.items():
                rows.append((f"of it {phase}", f"{processor:.2f}", f"{wall:.2f}"))
    facts = harness.environment()
    harness.show_facts(facts)
    harness.show_table("Until it starts", ("what", "processor s", "wall s"), rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
