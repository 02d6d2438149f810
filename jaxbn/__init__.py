"""Batch normalization for JAX: a pure function, exact and sparing of memory, with modules for Flax and Equinox."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from jaxbn._batch_norm import batch_norm
from jaxbn._decay import decay_mask
from jaxbn._diagnostics import Diagnostics, diagnostics
from jaxbn._fold import fold, fold_into_next
from jaxbn._fold_network import FoldedNorm, FoldReport, fold_network
from jaxbn._moments import Moments
from jaxbn._policy import save_pre_norm
from jaxbn._recalibrate import recalibrate
from jaxbn._renorm import BatchRenorm, batch_renorm_ramp
from jaxbn._schedules import accumulated, cumulative, debiased
from jaxbn._state import BatchNormParams, BatchNormState, init
from jaxbn._statistics import merge, moments

if TYPE_CHECKING:
    from jaxbn import interop, linen, nnx

__version__ = "0.2.0"

__all__ = [
    "BatchNormParams",
    "BatchNormState",
    "BatchRenorm",
    "Diagnostics",
    "FoldReport",
    "FoldedNorm",
    "Moments",
    "accumulated",
    "batch_norm",
    "batch_renorm_ramp",
    "cumulative",
    "debiased",
    "decay_mask",
    "diagnostics",
    "fold",
    "fold_into_next",
    "fold_network",
    "init",
    "interop",
    "linen",
    "merge",
    "moments",
    "nnx",
    "recalibrate",
    "save_pre_norm",
]


def __getattr__(name: str) -> ModuleType:
    """Import modules at their first use: Flax and Equinox are slow to import, and most programs need one at most."""
    if name in ("interop", "linen", "nnx", "equinox"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
