"""Other libraries' batch normalization: their arrays to `(params, state, options)`, and back.

Arrays in, arrays out, all of them NumPy's: no other library is imported, no file is read, no pickle ever loaded.
docs/migrating.md shows each library's names and conventions beside these, and how to carry arrays in safetensors files.
"""

from jaxbn.interop._equinox import from_equinox as from_equinox
from jaxbn.interop._equinox import options_from_equinox as options_from_equinox
from jaxbn.interop._equinox import to_equinox as to_equinox
from jaxbn.interop._haiku import from_haiku as from_haiku
from jaxbn.interop._haiku import options_from_haiku as options_from_haiku
from jaxbn.interop._haiku import to_haiku as to_haiku
from jaxbn.interop._keras import from_keras as from_keras
from jaxbn.interop._keras import options_from_keras as options_from_keras
from jaxbn.interop._keras import to_keras as to_keras
from jaxbn.interop._layer import Layer as Layer
from jaxbn.interop._layer import Options as Options
from jaxbn.interop._torch import from_torch as from_torch
from jaxbn.interop._torch import options_from_torch as options_from_torch
from jaxbn.interop._torch import to_torch as to_torch
