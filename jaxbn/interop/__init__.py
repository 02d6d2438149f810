"""Conversions between the batch normalization of other libraries and `(params, state, options)`, in both directions.

The conversions take and return NumPy arrays. They import no other library, read no files, and never load a pickle.
docs/migrating.md compares the names and conventions of each library, and shows how to carry arrays in safetensors
files.
"""

from jaxbn.interop._equinox import from_equinox, options_from_equinox, to_equinox
from jaxbn.interop._haiku import from_haiku, options_from_haiku, to_haiku
from jaxbn.interop._keras import from_keras, options_from_keras, to_keras
from jaxbn.interop._kernels import kernel_from_torch, kernel_to_torch
from jaxbn.interop._layer import Layer, Options
from jaxbn.interop._torch import from_torch, options_from_torch, to_torch

__all__ = [
    "Layer",
    "Options",
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_torch",
    "kernel_from_torch",
    "kernel_to_torch",
    "options_from_equinox",
    "options_from_haiku",
    "options_from_keras",
    "options_from_torch",
    "to_equinox",
    "to_haiku",
    "to_keras",
    "to_torch",
]


def __dir__() -> list[str]:
    """The public names."""
    return __all__
