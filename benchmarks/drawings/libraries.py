"""The look of a library in all pictures: one colour per library, one line style and one marker per form of it.

The colours are Okabe and Ito's, which colour-blind people can distinguish; ours is the same blue everywhere.
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
_FORMS = {  # what a name ends with
    "two-pass": ("s", "--"),
    "(torch)": ("s", "--"),
    "compiled, channels-last": ("D", ":"),
    "compiled": ("^", "-."),
    "channels-last": ("s", "--"),
}


def look(name: str) -> Look:
    """Of a library, by its name in the tables.

    Example:
        >>> look("PyTorch channels-last")
        Look(colour='#444444', marker='s', line='--')

    """
    colour = next((colour for library, colour in _COLOURS.items() if name.startswith(library)), style.QUIET)
    form = next((form for ending, form in _FORMS.items() if name.endswith(ending)), ("o", "-"))
    return Look(colour, *form)
