"""Batch normalization for JAX: exact, lean in memory, a pure function with Flax modules over it."""

from jaxbn import interop as interop
from jaxbn._batch_norm import batch_norm as batch_norm
from jaxbn._decay import decay_mask as decay_mask
from jaxbn._diagnostics import Diagnostics as Diagnostics
from jaxbn._diagnostics import diagnostics as diagnostics
from jaxbn._fold import fold as fold
from jaxbn._fold import fold_into_next as fold_into_next
from jaxbn._momentum import cumulative as cumulative
from jaxbn._momentum import debiased as debiased
from jaxbn._policy import save_pre_norm as save_pre_norm
from jaxbn._recalibrate import recalibrate as recalibrate
from jaxbn._renorm import BatchRenorm as BatchRenorm
from jaxbn._renorm import batch_renorm_ramp as batch_renorm_ramp
from jaxbn._state import BatchNormParams as BatchNormParams
from jaxbn._state import BatchNormState as BatchNormState
from jaxbn._state import init as init

__version__ = "0.1.0"
