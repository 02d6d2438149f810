"""One layer as a network has it: a convolution, a norm with what follows it, a convolution; both directions."""

from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Sharding

from benchmarks.norm_act import NormAct, NormName


class Variant(NamedTuple):
    """The operations behind the norm, and the least number of passes over x."""

    title: str
    relu: bool
    residual: bool
    pooled: bool
    floor: int | None  # where no convolution absorbs anything; None: unknown


# The convolutions alone take 12: forward each reads its input and writes its result; backward it reads its cotangent
# twice, its input once, and writes the gradient of its input. The norm takes 8: it reads x twice and writes y; it reads
# x and the cotangent twice and writes the gradient of x. With a residual it reads that, too, and since the sign of
# what relu was given follows from x no more, it writes the gradient of the residual, which the sums and the gradient
# of x then share with whoever made the residual.
VariantName = Literal["norm", "relu", "residual", "max-pool"]
VARIANTS: dict[VariantName, Variant] = {
    "norm": Variant("norm", relu=False, residual=False, pooled=False, floor=20),
    "relu": Variant("norm + relu", relu=True, residual=False, pooled=False, floor=20),
    "residual": Variant("norm + residual + relu", relu=True, residual=True, pooled=False, floor=23),
    "max-pool": Variant("norm + relu + max pool", relu=True, residual=False, pooled=True, floor=None),
}
_max_pool = partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))


class Layer(nn.Module):
    """Convolutions of 1×1, so that all arrays are of one size, but those behind the pooling."""

    norm: NormName
    variant: Variant

    @nn.compact
    def __call__(self, x: jax.Array, residual: jax.Array | None) -> jax.Array:
        """The result of the second convolution."""
        convolution = partial(nn.Conv, x.shape[-1], (1, 1), use_bias=False, dtype=x.dtype)
        activation, max_pool = nn.relu if self.variant.relu else None, _max_pool if self.variant.pooled else None
        return convolution()(NormAct(self.norm, activation, max_pool)(convolution()(x), residual))


def lower_layer(
    place: Sharding, norm: NormName, variant: Variant, shape: tuple[int, ...], dtype: str
) -> jax.stages.Lowered:
    """Forward and backward with all gradients, of the loss |result|² / 2: so backward can begin only after forward."""
    model = Layer(norm, variant)
    x = jax.ShapeDtypeStruct(shape, dtype)
    residual = x if variant.residual else None
    variables: Any = jax.eval_shape(model.init, jax.random.key(0), x, residual)

    def run(variables: Any, x: jax.Array, residual: jax.Array | None) -> Any:
        def forward(params: Any, x: jax.Array, residual: jax.Array | None) -> Any:
            return model.apply({**variables, "params": params}, x, residual, mutable=["batch_stats"])

        y, backward, statistics = jax.vjp(forward, variables["params"], x, residual, has_aux=True)
        return y, statistics, backward(y)

    return jax.jit(run, in_shardings=place).lower(variables, x, residual)
