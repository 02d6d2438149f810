"""The identity of a run: the options that determine what it learns, and its initial state.

Every checkpoint contains both, so that a checkpoint of another run is recognized. The options are those of config.json;
the digest of the initial state is in initial.json.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from train.config.sections import Config
from train.host import records, typed
from train.host.errors import UsageError

INITIAL = "initial.json"
SECTIONS = ("data", "model", "norm", "optimizer")


@dataclasses.dataclass(frozen=True)
class InitialState:
    """The record in initial.json."""

    sha256: str  # of the arrays


@dataclasses.dataclass(frozen=True)
class Identity:
    """The identity of a run; two runs with the same identity are the same."""

    options: dict[str, Any]  # by their names on the command line, as JSON values
    initial: str | None  # SHA-256 of the initial state's arrays; None if it is unknown

    def difference(self, stored: "Identity | None") -> str | None:
        """Return in what a checkpoint's identity differs, or None if the checkpoint may belong to this run.

        Options that only one of the two contains come from another version of jaxbn and do not count.
        """
        if stored is None:  # as in earlier versions, whose runs have no known initial state
            return None if self.initial is None else "it does not name its run"
        for name, here in self.options.items():
            there = stored.options.get(name, here)
            if there != here:
                return f"--{name.replace('_', '-')} is {typed.shown(there)} there and {typed.shown(here)} in this run"
        if None not in (self.initial, stored.initial) and self.initial != stored.initial:
            return "it started from other parameters"
        return None


def options_of(config: Config) -> dict[str, Any]:
    """All options that determine what a run learns; the folder of its data does not."""
    options = {"seed": config.run.seed}
    for section in SECTIONS:
        options |= dataclasses.asdict(getattr(config, section))
    del options["data_dir"]
    return options


def lasting(config: Config) -> dict[str, Any]:
    """The options that a resumed run must keep: all, except its length if the learning rate is constant."""
    options = options_of(config)
    if config.optimizer.schedule == "constant":
        del options["epochs"]
    return options


def check_resumed(config: Config, stored: Config) -> None:
    """Raise a UsageError if a resumed run would differ from the one that was stopped.

    Its output, its checkpoints and the folder of its data may change; with a constant learning rate also its length.
    """
    now = options_of(config)
    for name, value in lasting(stored).items():
        if now[name] != value:
            also = " (its schedule depends on it)" if name == "epochs" else ""
            raise UsageError(
                f"--{name.replace('_', '-')} cannot change when a run is resumed{also}: it was {value}, got {now[name]}"
            )


def identify(folder: Path, config: Config) -> Identity:
    """Return the identity of the run in a folder, from its configuration and its initial.json."""
    found = records.read(folder / INITIAL, InitialState)
    options = json.loads(json.dumps(lasting(config)))
    return Identity(options, found[0]["sha256"] if found else None)


def write_initial(folder: Path, sha256: str) -> None:
    """Write the digest of the initial state of a run."""
    records.write(folder / INITIAL, [dataclasses.asdict(InitialState(sha256))])
