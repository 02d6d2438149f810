"""Checks of the arguments of `batch_norm`: the conditions, and the errors if they do not hold."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from sys import float_info

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jaxbn._axes import is_known, size
from jaxbn._dtypes import at_least_16_bits, can_compute, described
from jaxbn._hyperparameter import hyperparameter, within, written
from jaxbn._normalize import ACTIVATIONS
from jaxbn._state import BatchNormParams, BatchNormState


def array(x: ArrayLike) -> jax.Array:
    """`x` as an array of floating or complex numbers."""
    result = converted("x", x)
    if not can_compute(result.dtype):
        raise TypeError(
            f"x must be floating or complex{at_least_16_bits(result.dtype)}; got {result.dtype.name}. "
            "Convert it first: x.astype(jnp.float32)"
        )
    return result


def training(train: bool) -> bool:
    """`train` as a Python bool."""
    known(
        "train",
        train,
        "jax.lax.cond(train, lambda: batch_norm(..., True), lambda: batch_norm(..., False))",
    )
    if not isinstance(train, bool | np.bool_):
        raise TypeError(f"train must be a Python bool; got {train!r}. Convert it first: bool(train)")
    return bool(train)


def known(name: str, flag: object, choice: str) -> None:
    """Raise if a flag that selects the computation is traced; `choice` shows how to choose at run time instead."""
    if isinstance(flag, Tracer):
        raise TypeError(
            f"{name} must be a Python bool that is known while tracing, since it selects the computation; got a traced "
            f"value. Mark the argument static (jax.jit(..., static_argnames='{name}')), or choose at run time with "
            f"{choice}"
        )


def epsilon(epsilon: ArrayLike) -> float | jax.Array:
    """`epsilon` as a non-negative Python float or a traced scalar."""
    number = hyperparameter(epsilon)
    if number is None or np.shape(number) != ():
        raise TypeError(f"epsilon must be a real number; got {written(epsilon)}")
    if not within(number, 0, float_info.max):
        raise ValueError(f"epsilon must be finite and at least 0, such as 1e-5; got {written(epsilon)}")
    return number


def values(params: BatchNormParams, state: BatchNormState | None) -> dict[str, jax.Array]:
    """The vectors of the parameters and the state by name, without those that are None."""
    if not isinstance(params, BatchNormParams):
        hint = _instead(params, "BatchNormParams(given.get('scale'), given.get('bias'))")
        raise TypeError(f"params must be a jaxbn.BatchNormParams(scale, bias); got {described(params)}. {hint}")
    if state is not None and not isinstance(state, BatchNormState):
        hint = _instead(state, "BatchNormState(given['mean'], given['var'], jnp.zeros((), jnp.int32))")
        raise TypeError(
            f"state must be a jaxbn.BatchNormState(mean, var, count) or None; got {described(state)}. {hint}"
        )
    vectors = {f"params.{name}": vector for name, vector in params._asdict().items() if vector is not None}
    if state is not None:
        vectors |= {"state.mean": state.mean, "state.var": state.var}
        if not _is_number(state.count, jnp.integer):
            given = described(state.count)
            raise TypeError(f"state.count must be one integer, such as jnp.zeros((), jnp.int32); got {given}")
    for name, vector in vectors.items():
        if not hasattr(vector, "astype"):
            raise TypeError(f"{name} must be an array; got {described(vector)}. Convert it first: jnp.asarray(...)")
        if jnp.issubdtype(vector.dtype, jnp.inexact) and not can_compute(vector.dtype):
            raise TypeError(
                f"{name} must be floating or complex and of 16 bits at least; got {vector.dtype.name}. Convert it "
                "first: .astype(jnp.float32)"
            )
    return vectors


def _instead(given: object, ours: str) -> str:
    """The part of an error that says what to write instead."""
    if isinstance(given, Mapping):
        return f"Convert the dictionary of a Flax module: jaxbn.{ours}"
    return "Pass params, state, x, train in this order"


def shapes(vectors: Mapping[str, jax.Array], shape: tuple[int, ...], features: tuple[int, ...]) -> None:
    """Raise unless the parameters and the state have the shape of the feature axes of `x`."""
    expected = tuple(shape[a] for a in features)
    for name, vector in vectors.items():
        if vector.shape != expected:
            raise ValueError(
                f"{name} must have shape {expected}, the sizes of the feature axes {features} of x of shape {shape}; "
                f"got {vector.shape}. Make params and state with jaxbn.init({expected}), or pass the axis that "
                "holds the features"
            )


def mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array | None:
    """The mask with as many dimensions as `x`, not broadcast to it, and without gradient."""
    if mask is None:
        return None
    mask = converted("mask", mask)
    if jnp.issubdtype(mask.dtype, jnp.complexfloating):
        raise TypeError(f"mask must hold bools or non-negative real weights; got {mask.dtype.name}")
    padded = (1,) * (len(shape) - mask.ndim) + mask.shape
    if mask.ndim > len(shape) or any(m not in (1, s) for m, s in zip(padded, shape, strict=True)):
        raise ValueError(
            f"mask must be broadcastable to x, which has shape {shape}; got {mask.shape}. "
            f"For a mask of whole examples, pass shape {(*shape[:1], *(1,) * (len(shape) - 1))}"
        )
    return jax.lax.stop_gradient(mask.reshape(padded))


def residual(residual: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    """The residual, of the shape of `x`."""
    if residual is None:
        return None
    residual = converted("residual", residual)
    if residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, {x.shape}; got {residual.shape}")
    if not can_compute(residual.dtype):
        raise TypeError(
            f"residual must be floating or complex{at_least_16_bits(residual.dtype)}; got {residual.dtype.name}. "
            "Convert it first: residual.astype(jnp.float32)"
        )
    return residual


def activation(
    activation: str | Callable[[jax.Array], jax.Array] | None, dtype: jnp.dtype
) -> Callable[[jax.Array], jax.Array] | None:
    """The activation as a function."""
    if activation is None or (callable(activation) and not isinstance(activation, str)):
        return activation
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation must be None, a function, or one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"activation must be a function of complex numbers for complex x; got {activation!r} for {dtype.name}"
        )
    return ACTIVATIONS[activation]


def max_pool(
    max_pool: Callable[[jax.Array], jax.Array] | None, dtype: jnp.dtype
) -> Callable[[jax.Array], jax.Array] | None:
    """The pooling function, which needs real arrays."""
    if max_pool is None:
        return None
    if not callable(max_pool):
        raise TypeError(
            "max_pool must be None or a function of an array, such as "
            f"partial(flax.linen.max_pool, window_shape=(2, 2), strides=(2, 2)); got {max_pool!r}"
        )
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"max_pool is for real x, since complex numbers have no order; got {dtype.name}")
    return max_pool


def ghost_batch_size(
    rows: int | None, shape: tuple[int, ...], features: tuple[int, ...], train: bool, shared: bool
) -> int | None:
    """The number of rows per ghost batch; in training it must divide the first axis, which must not be a feature axis.

    None if there are no rows.
    """
    if rows is None:
        return None
    if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 1:
        raise ValueError(f"ghost_batch_size must be a positive integer; got {rows!r}")
    if shared:
        raise ValueError(
            "ghost_batch_size and axis_name must not be passed together: one asks for statistics of small groups, the "
            "other for statistics shared by all shards; got both. For ghost batches on every shard, leave out "
            "axis_name, and average the states with jax.lax.pmean"
        )
    if 0 in features:
        raise ValueError(
            f"ghost_batch_size groups the rows of the first axis, which must not be a feature axis; got axis {features}"
        )
    if train and shape[0] % rows != 0:
        symbolic = "" if is_known(shape[0]) else f". For a symbolic number of rows, write a multiple, such as {rows}*b"
        raise ValueError(f"ghost_batch_size must divide the first axis of x; got {rows} for {shape[0]} rows{symbolic}")
    return int(rows) if shape[0] else None


def count(shape: tuple[int, ...], axes: tuple[int, ...], sharers: int) -> int:
    """The number of values per channel; if it is known to be below 2, `too_few` is called with a message."""
    values = size(shape, axes) * sharers
    if is_known(values) and values < 2:
        _told.get()(
            "the statistics of a batch need more than one value per channel: with one, the variance is 0 and the "
            f"output is the bias whatever x holds; x of shape {shape} reduced over axes {axes} has {values}"
        )
    return values


def _refuse(fault: str) -> None:
    raise ValueError(f"{fault}. Use a larger batch, or normalise with the running statistics (train=False)")


_told: ContextVar[Callable[[str], None]] = ContextVar("told", default=_refuse)


@contextmanager
def too_few(told: Callable[[str], None]) -> Iterator[None]:
    """A context in which a batch with one value per channel is not an error: `told` is called with the message."""
    before = _told.set(told)
    try:
        yield
    finally:
        _told.reset(before)


def result_dtype(dtype: DTypeLike | None, computed: jnp.dtype, given: jnp.dtype) -> jnp.dtype:
    """The type of the result: floating, and complex if the computation is."""
    result = given if dtype is None else jnp.dtype(dtype)
    if not jnp.issubdtype(result, jnp.inexact):
        raise TypeError(f"dtype must be floating or complex, such as jnp.float32; got {result.name}")
    if jnp.issubdtype(computed, jnp.complexfloating) and not jnp.issubdtype(result, jnp.complexfloating):
        raise TypeError(f"dtype must be complex for complex inputs; got {result.name}. Pass dtype=jnp.{computed.name}")
    return result


def _is_number(value: object, kind: type) -> bool:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.shape == () and jnp.issubdtype(value.dtype, kind)
    return isinstance(value, int) and not isinstance(value, bool)


def converted(name: str, value: ArrayLike) -> jax.Array:
    """The value as an array."""
    if isinstance(value, jax.Array):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array; got {described(value)}") from None
