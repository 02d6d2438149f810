"""What the arguments of `batch_norm` must be, and what a person is told where they are not."""

from collections.abc import Callable
from sys import float_info

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jaxbn._axes import size
from jaxbn._hyperparameter import described, hyperparameter, within
from jaxbn._normalize import ACTIVATIONS
from jaxbn._state import BatchNormParams, BatchNormState


def array(x: ArrayLike) -> jax.Array:
    """`x` as an array of floating or complex numbers."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"x must be floating or complex; got {x.dtype.name}. Convert it first: x.astype(jnp.float32)")
    return x


def training(train: bool) -> bool:
    """`train`, a Python bool."""
    known(
        "train",
        train,
        "jax.lax.cond(train, lambda: batch_norm(..., True), lambda: batch_norm(..., False))",
    )
    if not isinstance(train, bool | np.bool_):
        raise TypeError(f"train must be a Python bool; got {train!r}. Convert it first: bool(train)")
    return bool(train)


def known(name: str, flag: object, choice: str) -> None:
    """Raises where a flag that decides what is computed is traced; `choice` is how to choose at run time instead."""
    if isinstance(flag, Tracer):
        raise TypeError(
            f"{name} must be a Python bool, known while tracing, since it decides what is computed; got a traced "
            f"value. Mark the argument static (jax.jit(..., static_argnames='{name}')), or choose at run time with "
            f"{choice}"
        )


def epsilon(epsilon: ArrayLike) -> float | jax.Array:
    """`epsilon` as a Python float or a traced scalar that can stand under the root."""
    number = hyperparameter(epsilon)
    if number is None or jnp.shape(number) != ():
        raise TypeError(f"epsilon must be a real number; got {described(epsilon)}")
    if not within(number, 0, float_info.max):
        raise ValueError(f"epsilon must be finite and at least 0, such as 1e-5; got {described(epsilon)}")
    return number


def shapes(
    params: BatchNormParams, state: BatchNormState | None, shape: tuple[int, ...], features: tuple[int, ...]
) -> None:
    """The parameters and the state have the shape of the feature axes of `x`."""
    if not isinstance(params, BatchNormParams):
        raise TypeError(f"params must be a jaxbn.BatchNormParams(scale, bias); got {type(params).__name__}")
    if state is not None and not isinstance(state, BatchNormState):
        raise TypeError(f"state must be a jaxbn.BatchNormState(mean, var, count) or None; got {type(state).__name__}")
    expected = tuple(shape[a] for a in features)
    vectors = {"params.scale": params.scale, "params.bias": params.bias}
    if state is not None:
        vectors |= {"state.mean": state.mean, "state.var": state.var}
    for name, vector in vectors.items():
        if vector is not None and jnp.shape(vector) != expected:
            raise ValueError(
                f"{name} must have shape {expected}, the sizes of the feature axes {features} of x of shape {shape}; "
                f"got {jnp.shape(vector)}. Make params and state with jaxbn.init({expected}), or pass the axis that "
                "holds the features"
            )


def mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array | None:
    """The mask with as many dimensions as `x`, not broadcast, and without gradient."""
    if mask is None:
        return None
    mask = jnp.asarray(mask)
    if jnp.issubdtype(mask.dtype, jnp.complexfloating):
        raise TypeError(f"mask must be of bools or of non-negative real weights; got {mask.dtype.name}")
    padded = (1,) * (len(shape) - mask.ndim) + mask.shape
    if mask.ndim > len(shape) or any(m not in (1, s) for m, s in zip(padded, shape, strict=True)):
        raise ValueError(
            f"mask must be broadcastable to x, which has shape {shape}; got {mask.shape}. "
            f"A mask of whole examples has shape {(shape[0], *(1,) * (len(shape) - 1))}"
        )
    return jax.lax.stop_gradient(mask.reshape(padded))


def residual(residual: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    """The residual, of the shape of `x`."""
    if residual is None:
        return None
    residual = jnp.asarray(residual)
    if residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, {x.shape}; got {residual.shape}")
    if not jnp.issubdtype(residual.dtype, jnp.inexact):
        raise TypeError(f"residual must be floating or complex; got {residual.dtype.name}")
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
        raise TypeError(f"{activation} is for real x; for x of {dtype.name} pass a function of complex numbers")
    return ACTIVATIONS[activation]


def max_pool(max_pool: Callable[[jax.Array], jax.Array], dtype: jnp.dtype) -> Callable[[jax.Array], jax.Array]:
    """The pooling, a function of real arrays."""
    if not callable(max_pool):
        raise TypeError(
            "max_pool must be None or a function of an array, such as "
            f"partial(flax.linen.max_pool, window_shape=(2, 2), strides=(2, 2)); got {max_pool!r}"
        )
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"max_pool is for real x: complex numbers have no order; got {dtype.name}")
    return max_pool


def ghost_batch_size(
    rows: int | None, shape: tuple[int, ...], features: tuple[int, ...], train: bool, shared: bool
) -> int | None:
    """The number of rows of a group; in training it divides the first axis, which is no feature axis."""
    if rows is None:
        return None
    if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 1:
        raise ValueError(f"ghost_batch_size must be a positive integer; got {rows!r}")
    if shared:
        raise ValueError(
            "ghost_batch_size asks for statistics of small groups, axis_name for statistics shared by all shards: "
            "pass one of them. (Groups on every shard: leave out axis_name, and average the states with jax.lax.pmean)"
        )
    if 0 in features:
        raise ValueError("ghost_batch_size groups rows of the first axis, but axis names it as a feature axis")
    if train and shape[0] % rows:
        raise ValueError(f"ghost_batch_size must divide the first axis of x; got {rows} for {shape[0]} rows")
    return int(rows)


def refuse(fault: str) -> None:
    """Raises for a batch that no statistics can be taken of."""
    raise ValueError(f"{fault}. Use a larger batch, or normalise with the running statistics (train=False)")


def count(shape: tuple[int, ...], axes: tuple[int, ...], sharers: int, too_few: Callable[[str], None] = refuse) -> int:
    """The values that a channel's statistics are taken of, more than one; else `too_few` is told so."""
    values = size(shape, axes) * sharers
    if values < 2:
        too_few(
            "the statistics of a batch need more than one value per channel: with one, the variance is 0 and the "
            f"output is the bias whatever x holds; x of shape {shape} reduced over axes {axes} has {values}"
        )
    return values


def result_dtype(dtype: DTypeLike | None, computed: jnp.dtype, given: jnp.dtype) -> jnp.dtype:
    """The type of the result: floating, and complex where what is computed is."""
    result = given if dtype is None else jnp.dtype(dtype)
    if not jnp.issubdtype(result, jnp.inexact):
        raise TypeError(f"dtype must be floating or complex, such as jnp.float32; got {result.name}")
    if jnp.issubdtype(computed, jnp.complexfloating) and not jnp.issubdtype(result, jnp.complexfloating):
        raise TypeError(
            f"a result of type {result.name} cannot hold what complex inputs give; pass dtype=jnp.{computed.name}"
        )
    return result
