"""What both Flax modules are made of: their options, their statistics, and the one call of `jaxbn.batch_norm`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxbn._batch_norm import batch_norm
from jaxbn._dtypes import promote
from jaxbn._momentum import Schedule
from jaxbn._renorm import BatchRenorm
from jaxbn._state import BatchNormParams, BatchNormState

OPTIONS = (  # of `batch_norm`, each an attribute of the modules by the same name
    "axis",
    "momentum",
    "epsilon",
    "unbiased",
    "axis_name",
    "axis_index_groups",
    "ghost_batch_size",
    "renorm",
    "activation",
    "max_pool",
)


def options_of(module: object) -> dict[str, Any]:
    """The options that the module was constructed with."""
    return {name: getattr(module, name) for name in OPTIONS}


def initial_statistics(
    shape: tuple[int, ...], dtype: DTypeLike, momentum: float | Schedule, renorm: BatchRenorm | None
) -> dict[str, Callable[[], jax.Array]]:
    """Makes mean and variance before any update; and the number of updates, where a schedule reads it."""
    initial = {"mean": partial(jnp.zeros, shape, dtype), "var": partial(jnp.ones, shape, dtype)}
    if any(callable(option) for option in (momentum, *(renorm or ()))):
        initial["count"] = partial(jnp.zeros, (), jnp.int32)
    return initial


def apply(
    params: BatchNormParams,
    statistics: Sequence[jax.Array],
    x: jax.Array,
    dtype: DTypeLike,
    *,
    train: bool,
    computed: DTypeLike | None,
    at_least_float32: bool = True,
    mask: ArrayLike | None,
    residual: ArrayLike | None,
    options: Mapping[str, Any],
) -> tuple[jax.Array, list[jax.Array]]:
    """`batch_norm` with statistics as the modules keep them: mean, variance, and the count or not.

    Integers become floating point of the type of the result, of float32 at least: not rounded where they need not be.

    Args:
        params: scale and bias, or None for either.
        statistics: what the module's variables hold.
        x: the input.
        dtype: type of the result.
        train: whether to normalise with the batch's statistics.
        computed: the type that Flax computes the statistics in, and keeps them in where it is wider than theirs; by
            default that of `x`.
        at_least_float32: whether that is float32 or wider in any case. (What is computed here always is.)
        mask: which entries count.
        residual: added before the activation.
        options: those of the module.

    Returns:
        the output, and the new statistics.

    """
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(promote(dtype))
    mean, var, *count = statistics
    state = BatchNormState(mean, var, count[0] if count else jnp.zeros((), jnp.int32))
    y, state = batch_norm(params, state, x, train, mask=mask, residual=residual, dtype=dtype, **options)
    widen = partial(_statistic, computed=jnp.dtype(computed or x.dtype), at_least_float32=at_least_float32)
    return y, [widen(old, new) for old, new in zip(statistics, state, strict=False)]


def _statistic(old: jax.Array, new: jax.Array, computed: jnp.dtype, at_least_float32: bool) -> jax.Array:
    """The new statistic in the type that Flax keeps it in."""
    if not jnp.issubdtype(new.dtype, jnp.inexact):
        return new
    computed = computed if jnp.iscomplexobj(new) else jnp.finfo(computed).dtype  # of a complex type its parts'
    return new.astype(jnp.promote_types(old.dtype, promote(computed) if at_least_float32 else computed))
