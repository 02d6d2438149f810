"""The saved results of the benchmarks in a folder: one JSON file per benchmark, NAME.json, all of the same form."""

import json
from pathlib import Path
from typing import Any, NamedTuple


class Saved(NamedTuple):
    """One run of one benchmark."""

    options: dict[str, Any]  # the options of the command
    environment: dict[str, Any]  # the machine and the versions
    records: list[dict[str, Any]]  # one per measurement

    @property
    def quick(self) -> bool:
        """True if the run was shorter than those behind the figures of the documentation."""
        return bool(self.options.get("quick"))

    @property
    def on_gpu(self) -> bool:
        """True if JAX computed on a GPU."""
        return self.environment["device"].endswith("(gpu)")


def load_folder(folder: Path) -> dict[str, Saved]:
    """The benchmarks that have a file in the folder, by name.

    Raises:
        SystemExit: there is no such file, or one has another form.

    """
    found = {path.stem: _load(path) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise SystemExit(f"{folder} holds no JSON file: run benchmarks with --json {folder}/NAME.json first")
    return found


def _load(path: Path) -> Saved:
    try:
        return Saved(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:  # TypeError: other fields, or none
        raise SystemExit(f"{path} is not what a benchmark saves ({error}): run the benchmark again") from None
