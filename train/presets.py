"""`python -m train presets`: which presets there are, and what to expect of them."""

import dataclasses

from train.config import EXPECTATIONS, PRESETS, Config


@dataclasses.dataclass(frozen=True)
class Presets:
    """Lists the presets, what to expect of them, and in which options they differ from the default."""


def presets(_: Presets) -> None:
    """Prints them."""
    for name, config in PRESETS.items():
        print(f"{name}: {EXPECTATIONS[name]}")
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
                    options.append(f"--{option.name.replace('_', '-')} {value}")
    return options
