"""The options of a configuration, one by one, as on the command line."""

import dataclasses
from typing import Any, NamedTuple

from train.config.sections import Config


class Option(NamedTuple):
    """An option of the configuration."""

    section: str
    name: str
    value: str
    usual: bool  # as it is by default

    @property
    def typed(self) -> str:
        """As on the command line."""
        return f"--{self.name}" if self.value == "true" else f"--{self.name} {self.value}"


def listed(config: Config) -> list[Option]:
    """Every option, section by section."""
    found = []
    for section in dataclasses.fields(config):
        part, usual = getattr(config, section.name), getattr(Config(), section.name)
        if dataclasses.is_dataclass(part):
            for option in dataclasses.fields(part):
                value = getattr(part, option.name)
                name, same = option.name.replace("_", "-"), value == getattr(usual, option.name)
                found.append(Option(section.name, name, text(value), same))
    return found


def text(value: Any) -> str:  # noqa: ANN401  (any option's)
    """A value as it is written on the command line (where the name of a flag alone says true).

    Example:
        >>> text((32, 64)), text(None), text(True)
        ('32 64', 'none', 'true')

    """
    if isinstance(value, tuple):
        return " ".join(map(text, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
