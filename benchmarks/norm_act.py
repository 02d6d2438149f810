"""A norm with the operations that usually follow it, as one module: Flax's norm, and ours in both forms."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax

import jaxbn.linen
from benchmarks.case import OURS

NormName = Literal["jaxbn", "jaxbn-fused", "flax", "flax-two-pass"]

TITLES: dict[NormName, str] = {
    "jaxbn": OURS,
    "jaxbn-fused": f"{OURS}, fused",
    "flax": "Flax",
    "flax-two-pass": "Flax two-pass",
}
_MODULES: dict[NormName, Callable[..., nn.Module]] = {
    "jaxbn": jaxbn.linen.BatchNorm,
    "jaxbn-fused": jaxbn.linen.BatchNorm,
    "flax": nn.BatchNorm,
    "flax-two-pass": partial(nn.BatchNorm, use_fast_variance=False),
}


class NormAct(nn.Module):
    """max_pool(activation(norm(x) + residual)).

    Attributes:
        norm: the norm; "jaxbn-fused" takes the other operations as options, the others run them separately.
        activation: applied after the residual is added.
        max_pool: applied last.
        use_running_average: whether to normalise with the running statistics.

    """

    norm: NormName
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    max_pool: Callable[[jax.Array], jax.Array] | None = None
    use_running_average: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, residual: jax.Array | None = None) -> jax.Array:
        """Of the shape of `x`, or the one that `max_pool` gives it, and of its type."""
        options: dict[str, Any] = {"use_running_average": self.use_running_average, "dtype": x.dtype}
        make = _MODULES[self.norm]
        if self.norm == "jaxbn-fused":
            return make(activation=self.activation, max_pool=self.max_pool, **options)(x, residual=residual)
        y = make(**options)(x)
        y = y if residual is None else y + residual
        for function in (self.activation, self.max_pool):
            y = y if function is None else function(y)
        return y
