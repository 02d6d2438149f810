"""What the benchmarks have saved in a folder: a JSON file each, NAME.json, of the same form."""

import json
from pathlib import Path
from typing import Any, NamedTuple


class Saved(NamedTuple):
    """One run of one benchmark."""

    options: dict[str, Any]  # what it was asked for
    environment: dict[str, Any]  # where it ran, and with which versions
    records: list[dict[str, Any]]  # a measurement each

    @property
    def quick(self) -> bool:
        """Whether it is less than the figures of the documentation are made of."""
        return bool(self.options.get("quick"))

    @property
    def on_gpu(self) -> bool:
        """Whether JAX computed on a GPU."""
        return self.environment["device"].endswith("(gpu)")


def load_folder(folder: Path) -> dict[str, Saved]:
    """The benchmarks that there is a file of, by name.

    Raises:
        SystemExit: there is none, or one is of another form.

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
