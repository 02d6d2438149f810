"""What both Flax modules are made of: their options, their statistics, and the one call of `jaxbn.batch_norm`."""

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

CALL = {"mask", "residual", "dtype"}  # what each call of a module decides anew
OPTIONS = [  # of `batch_norm`, each an attribute of the modules by the same name
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
    """Makes mean and variance before any update; and the number of updates, where a schedule reads it."""
    initial = {"mean": partial(jnp.zeros, shape, dtype), "var": partial(jnp.ones, shape, dtype)}
    if any(callable(option) for option in (momentum, *(renorm or ()))):
        initial["count"] = partial(jnp.zeros, (), jnp.int32)
    return initial


def running(use_running_average: object, choice: str) -> bool:
    """The flag as a Python bool; where it is traced, the error names `choice`, the way to choose at run time."""
    check.known("use_running_average", use_running_average, choice)
    return bool(use_running_average)


def updating(constructed: bool, called: bool | None) -> bool:
    """True if the running statistics take in a batch: as the call says, or else the construction."""
    update = constructed if called is None else called
    check.known("update_statistics", update, "momentum=jnp.where(update_statistics, momentum, 1.0)")
    return bool(update)


def warn(fault: str) -> None:
    """Warns of a batch that no statistics can be taken of, which Flax trains on silently."""
    warnings.warn(
        f"{fault}. As in Flax, it is computed all the same, and goes into the running statistics. Use a larger batch, "
        "or normalise with the running statistics (use_running_average=True)",
        stacklevel=2,
    )


def ignore(fault: str) -> None:
    """Says nothing of a batch whose outputs and statistics are not used."""


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
    """`batch_norm` with statistics as the modules keep them: mean, variance, and the count or not.

    Integers become floating point of the type of the result, of float32 at least: not rounded where they need not be.

    Args:
        params: scale and bias, or None for either.
        statistics: what the module's variables hold.
        x: the input.
        dtype: type of the result.
        train: whether to normalise with the batch's statistics.
        mask: which entries count.
        residual: added before the activation.
        options: those of the module.
        too_few: is told of a batch with one value per channel.

    Returns:
        the output, and the new statistics, of the types that they had.

    """
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(promote(dtype))
    mean, var, *count = statistics
    state = BatchNormState(mean, var, count[0] if count else jnp.zeros((), jnp.int32))
    with check.too_few(too_few):
        y, state = batch_norm(params, state, x, train, mask=mask, residual=residual, dtype=dtype, **options)
    return y, [_kept(old, new) for old, new in zip(statistics, state, strict=False)]


def _kept(old: jax.Array, new: jax.Array) -> jax.Array:
    """The new statistic in the type of the old one, or in a complex type where it would lose its imaginary part."""
    imaginary = jnp.iscomplexobj(new) and not jnp.iscomplexobj(old)
    return new.astype(promote(old.dtype, jnp.complex64) if imaginary else old.dtype)
