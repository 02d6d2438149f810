"""`python -m train presets`: which presets there are, and what to expect of them."""

import dataclasses
from typing import NamedTuple

from train.config import PRESETS, Config, Preset


@dataclasses.dataclass(frozen=True)
class Presets:
    """Lists the presets, what to expect of them, and in which options they differ from the default."""


class Expectation(NamedTuple):
    """What a preset is, and what came of it: measured on 2 CPU cores."""

    network: str
    data: str
    result: str  # of the test set
    seconds: str  # of training, without compilation


EXPECTATIONS: dict[Preset, Expectation] = {}


def presets(_: Presets) -> None:
    """Prints them."""
    for name, config in PRESETS.items():
        options = difference(config)
        print(f"  python -m train --preset {name}" + (f"\n  that is {' '.join(options)}" if options else ""))


def difference(config: Config) -> list[str]:
    """The options, as on the command line, in which a configuration differs from the default."""
    options = []
    for field in dataclasses.fields(config):
        section, usual = getattr(config, field.name), getattr(Config(), field.name)
        if dataclasses.is_dataclass(section):
            for option in dataclasses.fields(section):
                value = getattr(section, option.name)
                if value != getattr(usual, option.name):
                    options.append(_written(option.name, value))
    return options


def _written(name: str, value: object) -> str:
    """An option as on the command line."""
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return option
    return f"{option} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
