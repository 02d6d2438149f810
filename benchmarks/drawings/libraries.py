"""The look of each library in every picture: a colour per library, and a line and a marker for each of its forms.

The colours are Okabe and Ito's, which people with colour blindness can tell apart; ours is the same blue everywhere.
"""

from typing import NamedTuple

from benchmarks.case import OURS
from train.report import style


class Look(NamedTuple):
    """The look of one library in one form."""

    colour: str
    marker: str
    line: str


_COLOURS = {
    OURS: style.BLUE,
    "Flax": style.VERMILION,
    "Haiku": "#009E73",
    "Equinox": "#CC79A7",
    "Keras": "#E69F00",
    "PyTorch": "#444444",
}
_FORMS = {  # by the end of the name
    "two-pass": ("s", "--"),
    "(torch)": ("s", "--"),
    "compiled, channels-last": ("D", ":"),
    "compiled": ("^", "-."),
    "channels-last": ("s", "--"),
}


def look(name: str) -> Look:
    """Return the look of a library by its name in the tables.

    Example:
        >>> look("PyTorch channels-last")
        Look(colour='#444444', marker='s', line='--')

    """
    colour = next((colour for library, colour in _COLOURS.items() if name.startswith(library)), style.QUIET)
    form = next((form for ending, form in _FORMS.items() if name.endswith(ending)), ("o", "-"))
    return Look(colour, *form)
