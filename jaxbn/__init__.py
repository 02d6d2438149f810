"""Batch normalization for JAX: exact, lean in memory, a pure function with Flax modules over it."""

from jaxbn._batch_norm import batch_norm as batch_norm
from jaxbn._state import BatchNormParams as BatchNormParams
from jaxbn._state import BatchNormState as BatchNormState
from jaxbn._state import init as init

__version__ = "0.1.0"
