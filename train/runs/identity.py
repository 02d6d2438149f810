"""The identity of a run: the options that it learns by, and the state that it began with.

Every checkpoint holds both, so that the checkpoint of another run is known for what it is. The options are those of
config.json; the digest of the initial state is kept in initial.json, beside it.
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
    """Two runs of one identity are the same run."""

    options: dict[str, Any]  # by their names on the command line, as JSON values
    initial: str | None  # SHA-256 of the initial state's arrays; None where it is not known

    def difference(self, stored: "Identity | None") -> str | None:
        """In what a checkpoint's identity differs, as a phrase; None where the checkpoint may be of this run.

        Options that only one of the two knows are of another version of jaxbn, and do not count.
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
    """All options that a run learns by; where its data lie is none of them."""
    options = {"seed": config.run.seed}
    for section in SECTIONS:
        options |= dataclasses.asdict(getattr(config, section))
    del options["data_dir"]
    return options


def lasting(config: Config) -> dict[str, Any]:
    """Those of them that a resumed run keeps: with a constant learning rate all but its length, else all."""
    options = options_of(config)
    if config.optimizer.schedule == "constant":
        del options["epochs"]
    return options


def check_resumed(config: Config, stored: Config) -> None:
    """Raises a UsageError where a resumed run would not be the one that was stopped.

    What it keeps and shows may change, and where its data are; with a constant learning rate, how long it goes on, too.
    """
    now = options_of(config)
    for name, value in lasting(stored).items():
        if now[name] != value:
            also = " (its schedule depends on it)" if name == "epochs" else ""
            raise UsageError(
                f"--{name.replace('_', '-')} cannot change when a run is resumed{also}: it was {value}, got {now[name]}"
            )


def identify(folder: Path, config: Config) -> Identity:
    """The identity of the run in a folder, by its configuration and its initial.json."""
    found = records.read(folder / INITIAL, InitialState)
    options = json.loads(json.dumps(lasting(config)))
    return Identity(options, found[0]["sha256"] if found else None)


def write_initial(folder: Path, sha256: str) -> None:
    """Keeps the digest of the state that a run begins with."""
    records.write(folder / INITIAL, [dataclasses.asdict(InitialState(sha256))])
