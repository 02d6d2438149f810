"""The variants of `jaxbn.batch_norm`, all of which are tested for all invariants: one line here covers a new option.

Every shape has a reduced axis that eight devices can share.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracle

from jaxbn import BatchNormParams, BatchNormState, BatchRenorm, batch_norm, cumulative, debiased

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]  # from a generator and the shape of x


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of batch_norm
    shape: tuple[int, ...] = (8, 5, 3)
    train: bool = True
    tracked: bool = True  # False: state=None
    use_scale: bool = True
    use_bias: bool = True
    arrays: Mapping[str, Draw] = field(default_factory=dict)  # keyword arguments that are arrays: how to draw each
    reference: Mapping[str, Any] = field(default_factory=dict)  # what the oracle gets in place of some options
    smooth: bool = True  # False: the oracle's numerical derivatives are not the derivatives: kinks, rounding, r and d
    real: bool = False  # True: complex x is an error
    signs: bool = False  # True: some channels have a negative scale

    @property
    def updates(self) -> bool:
        """True if the case returns a new state."""
        return self.train and self.tracked

    @property
    def pools_first(self) -> bool:
        """True if pooling comes before the normalization."""
        rising = self.options.get("activation") in (None, "relu", "tanh")
        return "max_pool" in self.options and rising and "residual" not in self.arrays

    @property
    def reduced(self) -> tuple[int, ...]:
        return oracle.reduced_axes(self.options.get("axis", -1), len(self.shape))

    @property
    def features(self) -> tuple[int, ...]:
        """The shape of the feature axes."""
        return tuple(n for a, n in enumerate(self.shape) if a not in self.reduced)


def rows(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A mask that keeps five of eight rows of the first axis."""
    return rng.permuted(np.arange(shape[0]) % 8 < 5).reshape(-1, *(1 for _ in shape[1:]))


def entries(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of single entries."""
    return rng.random(shape) < 0.7


def weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Weights from 0 to 3, integers and others, equal along the last axis."""
    return rng.choice([0, 0.5, 1, 1, 2, 3], size=(*shape[:-1], 1))


def enormous(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Weights whose sum overflows float32, different along the last axis."""
    return rng.choice([0, 1e38, 2e38, 3e38], size=shape)


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def two_more(count: Any) -> Any:
    """A schedule."""
    return jnp.asarray(count, jnp.float32) + 2.0


def pairs_along(axis: int) -> Callable[[jax.Array], jax.Array]:
    """Max pooling of pairs of neighbours, without the last of an odd number. A channel's sign decides the order."""

    def max_pool(y: jax.Array) -> jax.Array:
        size = y.shape[axis] // 2 * 2
        return jnp.maximum(*(jax.lax.slice_in_dim(y, start, size, 2, axis) for start in (0, 1)))

    return max_pool


POOLED: dict[str, Any] = {"max_pool": pairs_along(1)}
POOLED_REFERENCE: dict[str, Any] = {"max_pool": oracle.pairs_along(1)}


CASES = (
    Case("3-D"),
    Case("2-D", {"unbiased": True}, (16, 3)),
    Case("4-D", {"momentum": 0.9}, (8, 3, 2, 4)),
    Case("channels first", {"axis": 1}, (8, 3, 5)),
    Case("channels first 4-D", {"axis": 1, "epsilon": 0.3}, (8, 3, 2, 4)),
    Case("features on axis 0", {"axis": 0, "unbiased": True}, (3, 8, 2)),
    Case("two feature axes", {"axis": (1, -1)}, (8, 2, 4, 3)),
    Case("two feature axes, the other way round", {"axis": (-1, 1)}, (8, 2, 4, 3)),
    Case("no feature axis", {"axis": ()}, (8, 3)),
    Case("momentum 0", {"momentum": 0}),
    Case("momentum 1", {"momentum": 1.0}),
    Case("momentum by channel", {"momentum": np.array([0.0, 0.5, 0.99], np.float32), "unbiased": True}),
    Case("no scale", use_scale=False),
    Case("no bias", use_bias=False),
    Case("neither scale nor bias", use_scale=False, use_bias=False),
    Case("untracked", tracked=False),
    Case("untracked evaluation", tracked=False, train=False),
    Case("to bfloat16", {"dtype": jnp.bfloat16}, smooth=False),
    Case("evaluation", train=False),
    Case("evaluation, channels first", {"axis": 1, "epsilon": 1e-3}, (8, 3, 2, 4), train=False),
    Case("evaluation, two feature axes", {"axis": (1, -1)}, (8, 2, 4, 3), train=False),
    Case("evaluation, neither scale nor bias", train=False, use_scale=False, use_bias=False),
    Case("evaluation, to bfloat16", {"dtype": jnp.bfloat16}, train=False, smooth=False),
    Case("mask of rows", {"unbiased": True}, (16, 3), arrays={"mask": rows}),
    Case("mask of entries", {"axis": 1}, (8, 3, 5), arrays={"mask": entries}),
    Case("weights", arrays={"mask": weights}),
    Case("enormous weights", arrays={"mask": enormous}),
    Case("evaluation, masked", train=False, arrays={"mask": rows}),
    Case("ghost batches", {"ghost_batch_size": 4, "unbiased": True}, (16, 2, 3)),
    Case("ghost batches, masked", {"ghost_batch_size": 8}, (16, 2, 3), arrays={"mask": rows}),
    Case("cumulative", {"momentum": cumulative()}, reference={"momentum": oracle.cumulative()}),
    Case("debiased", {"momentum": debiased(0.8)}, reference={"momentum": oracle.debiased(0.8)}),
    Case("renorm at its bounds", {"renorm": BatchRenorm(1.001, 0.001)}, real=True),
    Case("renorm within its bounds", {"renorm": BatchRenorm(9.0, two_more)}, smooth=False, real=True),
    Case("residual", arrays={"residual": noise}),
    Case("residual and relu", {"activation": "relu"}, arrays={"residual": noise}, smooth=False),
    Case("silu, masked", {"activation": "silu"}, arrays={"mask": rows}, real=True),
    Case("evaluation, residual and tanh", {"activation": "tanh"}, train=False, arrays={"residual": noise}, real=True),
    Case("an activation of one's own", {"activation": lambda z: z * z}),
    Case("max pool of pairs", POOLED, reference=POOLED_REFERENCE, real=True, signs=True),
    Case(
        "max pool of tanh, channels first",
        {"max_pool": pairs_along(-1), "activation": "tanh", "axis": 1},
        (8, 3, 4),
        reference={"max_pool": oracle.pairs_along(-1)},
        real=True,
        signs=True,
    ),
    Case(
        "max pool of relu, masked ghost batches",
        {**POOLED, "activation": "relu", "ghost_batch_size": 8},
        (16, 4, 3),
        arrays={"mask": rows},
        reference=POOLED_REFERENCE,
        real=True,
        signs=True,
        smooth=False,
    ),
    Case("max pool of silu", {**POOLED, "activation": "silu"}, reference=POOLED_REFERENCE, real=True, signs=True),
    Case("max pool of a residual", POOLED, arrays={"residual": noise}, reference=POOLED_REFERENCE, real=True),
    Case("max pool in evaluation", POOLED, train=False, reference=POOLED_REFERENCE, real=True, signs=True),
    Case(
        "max pool to bfloat16", {**POOLED, "dtype": jnp.bfloat16}, reference=POOLED_REFERENCE, real=True, smooth=False
    ),
)


class Example(NamedTuple):
    """Arguments of `batch_norm`: a pytree, so that examples can be stacked, differentiated and sharded."""

    params: BatchNormParams
    state: BatchNormState | None
    x: jax.Array
    arrays: dict[str, jax.Array]


def example(case: Case, dtype: Any = jnp.float32, seed: int = 0) -> Example:
    """Random arguments of this case: channels with different means and scales, and a state after some updates."""
    rng = np.random.default_rng([seed, *case.name.encode()])
    wide = np.promote_types(dtype, np.float32) if dtype != jnp.bfloat16 else np.dtype(np.float32)
    real = np.zeros((), wide).real.dtype

    def normal(shape: tuple[int, ...], offset: float = 0.0) -> np.ndarray:
        noise = rng.normal(size=shape)
        return noise + offset + (1j * rng.normal(size=shape) if np.issubdtype(wide, np.complexfloating) else 0)

    spread = np.expand_dims(rng.uniform(0.5, 2, size=case.features), case.reduced)
    centre = np.expand_dims(normal(case.features, 1.0), case.reduced)
    scale = rng.uniform(0.5, 1.5, size=case.features)
    scale.ravel()[1::2] *= -1 if case.signs else 1
    params = BatchNormParams(
        scale=jnp.asarray(scale, real) if case.use_scale else None,
        bias=jnp.asarray(rng.normal(size=case.features), real) if case.use_bias else None,
    )
    state = BatchNormState(
        mean=jnp.asarray(normal(case.features), wide),
        var=jnp.asarray(rng.uniform(0.5, 2, size=case.features), real),
        count=jnp.asarray(4, jnp.int32),
    )
    x = jnp.asarray(normal(case.shape) * spread + centre, dtype)
    drawn = {name: draw(rng, case.shape) for name, draw in case.arrays.items()}
    types = {"mask": real, "residual": x.dtype}
    arrays = {name: jnp.asarray(a, bool if a.dtype == bool else types[name]) for name, a in drawn.items()}
    return Example(params, state if case.tracked else None, x, arrays)


def function(case: Case) -> Callable[[Example], tuple[jax.Array, BatchNormState | None]]:
    """`batch_norm` of an example, with the options of this case."""
    return lambda e: batch_norm(e.params, e.state, e.x, case.train, **keywords(case, e))


def expected(case: Case, e: Example, **changed: Any) -> tuple[np.ndarray, Any]:
    """The oracle's answer."""
    return oracle.batch_norm(e.params, e.state, e.x, case.train, **{**keywords(case, e), **case.reference, **changed})


def keywords(case: Case, e: Example) -> dict[str, Any]:
    return {**case.options, **e.arrays}
