"""invocations.jsonl: one record for each time that a run was started or resumed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from train.host import invocation, records

FILE = "invocations.jsonl"


@dataclasses.dataclass(frozen=True)
class Invocation:
    """A line of invocations.jsonl."""

    time: str
    command: str
    commit: str | None  # None where the source is not a git checkout
    options: tuple[str, ...]  # those set on the command line, by a preset or by a configuration file


def append(folder: Path, options: Sequence[str]) -> None:
    """Adds a record of this process to a run's folder."""
    here = Invocation(invocation.now(), invocation.command_line(), invocation.commit(), tuple(options))
    records.write(folder / FILE, map(dataclasses.asdict, (*read(folder), here)))  # whole: a run can be killed here


def read(folder: Path) -> list[Invocation]:
    """The invocations of a run, in order; none where the run recorded none."""
    return [Invocation(**record) for record in records.read(folder / FILE, Invocation)]
