"""The options of a configuration, one by one, as on the command line."""

import dataclasses
from typing import Any, NamedTuple

from train.config.sections import Config


class Option(NamedTuple):
    """An option of the configuration."""

    section: str
    name: str
    value: str
    usual: bool  # the same as in the configuration that it is compared with
    is_flag: bool  # typed without a value

    @property
    def typed(self) -> str:
        """The option as it is typed on the command line."""
        if self.is_flag:
            return f"--{'no-' if self.value == 'off' else ''}{self.name}"
        return f"--{self.name} {self.value}"


DEFAULT = Config()


def listed(config: Config, usual_config: Config = DEFAULT) -> list[Option]:
    """Every option, section by section, compared with another configuration (by default, the default one)."""
    found = []
    for section in dataclasses.fields(config):
        part, usual = getattr(config, section.name), getattr(usual_config, section.name)
        if dataclasses.is_dataclass(part):
            for option in dataclasses.fields(part):
                value = getattr(part, option.name)
                name, same = option.name.replace("_", "-"), value == getattr(usual, option.name)
                found.append(Option(section.name, name, text(value), same, isinstance(value, bool)))
    return found


def text(value: Any) -> str:  # noqa: ANN401  (any option's)
    """A value as it is written on the command line; a flag, which takes no value there, is on or off.

    Example:
        >>> text((32, 64)), text(None), text(True)
        ('32 64', 'none', 'on')

    """
    if isinstance(value, tuple):
        return " ".join(map(text, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
