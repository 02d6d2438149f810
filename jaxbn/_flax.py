"""The common part of both Flax modules: their options, their statistics, and the call of `jaxbn.batch_norm`."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxbn import _check as check
from jaxbn._batch_norm import batch_norm
from jaxbn._dtypes import promote
from jaxbn._renorm import BatchRenorm
from jaxbn._schedules import Schedule
from jaxbn._state import BatchNormParams, BatchNormState

CALL = {"mask", "residual", "dtype"}  # arguments that each call of a module passes
OPTIONS = [  # options of `batch_norm` that are attributes of the modules, under the same names
    name
    for name, parameter in inspect.signature(batch_norm).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in CALL
]


def options_of(module: object) -> dict[str, Any]:
    """The options that the module was constructed with."""
    return {name: getattr(module, name) for name in OPTIONS}


def initial_statistics(
    shape: tuple[int, ...], dtype: DTypeLike, momentum: ArrayLike | Schedule, renorm: BatchRenorm | None
) -> dict[str, Callable[[], jax.Array]]:
    """The initial mean and variance and, if a schedule reads it, the number of updates."""
    initial = {"mean": partial(jnp.zeros, shape, dtype), "var": partial(jnp.ones, shape, dtype)}
    if any(callable(option) for option in (momentum, *(renorm or ()))):
        initial["count"] = partial(jnp.zeros, (), jnp.int32)
    return initial


def running(use_running_average: object, choice: str) -> bool:
    """The flag as a Python bool; if it is traced, the error shows `choice`, the way to choose at run time."""
    check.known("use_running_average", use_running_average, choice)
    return bool(use_running_average)


def updating(constructed: bool, called: bool | None) -> bool:
    """True if the running statistics are updated: the argument of the call, or else of the constructor."""
    update = constructed if called is None else called
    check.known("update_statistics", update, "momentum=jnp.where(update_statistics, momentum, 1.0)")
    return bool(update)


def warn(fault: str) -> None:
    """Warn of a batch with too few values for statistics, on which Flax trains silently."""
    warnings.warn(
        f"{fault}. As in Flax, the batch is normalised nevertheless and updates the running statistics. Use a larger "
        "batch, or normalise with the running statistics (use_running_average=True)",
        stacklevel=2,
    )


def ignore(fault: str) -> None:
    """Say nothing: the outputs and the statistics of this batch are not used."""


def apply(
    params: BatchNormParams,
    statistics: Sequence[jax.Array],
    x: jax.Array,
    dtype: DTypeLike,
    *,
    train: bool,
    mask: ArrayLike | None,
    residual: ArrayLike | None,
    options: Mapping[str, Any],
    too_few: Callable[[str], None],
) -> tuple[jax.Array, list[jax.Array]]:
    """Call `batch_norm` with statistics as the modules keep them: mean, variance and, possibly, the count.

    Integers are converted to the result's dtype, at least float32.

    Args:
        params: scale and bias; either may be None.
        statistics: the values of the module's variables.
        x: the input.
        dtype: type of the result.
        train: whether to normalise with the batch's statistics.
        mask: which entries count.
        residual: added before the activation.
        options: the options of the module.
        too_few: called with a message for a batch with one value per channel.

    Returns:
        The output, and the new statistics in their previous types.

    """
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(promote(dtype))
    mean, var, *count = statistics
    state = BatchNormState(mean, var, count[0] if count else jnp.zeros((), jnp.int32))
    with check.too_few(too_few):
        y, state = batch_norm(params, state, x, train, mask=mask, residual=residual, dtype=dtype, **options)
    return y, [_kept(old, new) for old, new in zip(statistics, state, strict=False)]


def _kept(old: jax.Array, new: jax.Array) -> jax.Array:
    """The new statistic in the type of the old one, or in a complex type if it would lose its imaginary part."""
    imaginary = jnp.iscomplexobj(new) and not jnp.iscomplexobj(old)
    return new.astype(promote(old.dtype, jnp.complex64) if imaginary else old.dtype)
