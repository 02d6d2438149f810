"""Batch normalization in float64 NumPy, written as in the paper: the reference for all other computations.

Ioffe & Szegedy 2015, algorithms 1 and 2 and the gradients of section 3; Ioffe 2017 for renorm. It uses no JAX and no
shortcuts: two passes, and every formula as printed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# The weight of the old statistic: a constant, or a function of the count; one for all channels, or one per channel.
Weight = float | np.ndarray | Callable[[int], float | np.ndarray]


class State(NamedTuple):
    mean: np.ndarray
    var: np.ndarray
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]


class Statistics(NamedTuple):
    """The statistics of one group of entries; the arrays have size one along reduced axes."""

    total: np.ndarray  # the sum of the weights
    mean: np.ndarray
    var: np.ndarray  # biased


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda y: np.where(y > 0, y, 0),
    "leaky_relu": lambda y: np.where(y > 0, y, 0.01 * y),
    "silu": lambda y: y / (1 + np.exp(-y)),
    "gelu": lambda y: 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))),  # jax.nn.gelu's default form
    "tanh": np.tanh,
    "sigmoid": lambda y: 1 / (1 + np.exp(-y)),
    "elu": lambda y: np.where(y > 0, y, np.exp(np.minimum(y, 0)) - 1),
}


def wide(array: Any) -> np.ndarray:
    """The same numbers in float64, or complex128."""
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def batch_norm(
    params: Any,
    state: Any,
    x: Any,
    train: bool,
    *,
    axis: int | Sequence[int] = -1,
    momentum: Weight = 0.99,
    epsilon: float = 1e-5,
    unbiased: bool = False,
    mask: Any = None,
    ghost_batch_size: int | None = None,
    renorm: Any = None,
    residual: Any = None,
    activation: str | Callable[[np.ndarray], np.ndarray] | None = None,
    max_pool: Callable[[np.ndarray], np.ndarray] | None = None,
    dtype: Any = None,  # the answer is always float64: rounding it is up to the comparison
) -> tuple[np.ndarray, Any]:
    """The result that `jaxbn.batch_norm` promises for the same arguments: y, and a new `State` or the given state."""
    x = wide(x)
    reduced = reduced_axes(axis, x.ndim)
    if not train and state is not None:
        running = Statistics(np.ones(()), keepdims(state.mean, reduced), keepdims(state.var, reduced))
        return finish(normalized(x, running, epsilon), params, reduced, residual, activation, max_pool), state

    weights = np.broadcast_to(np.float64(1) if mask is None else wide(mask), x.shape)
    size = ghost_batch_size if ghost_batch_size is not None and train else x.shape[0]
    starts = range(0, x.shape[0], size)
    groups = [statistics(x[i : i + size], weights[i : i + size], reduced) for i in starts]
    parts = [normalized(x[i : i + size], group, epsilon) for i, group in zip(starts, groups, strict=True)]
    if renorm is not None:
        parts = [renormed(*pair, state, renorm, epsilon, reduced) for pair in zip(parts, groups, strict=True)]
    y = finish(np.concatenate(parts), params, reduced, residual, activation, max_pool)
    return y, state if state is None else updated(state, groups, momentum, unbiased, reduced)


def reduced_axes(axis: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    features = {a % ndim for a in ((axis,) if isinstance(axis, int) else axis)}
    return tuple(a for a in range(ndim) if a not in features)


def keepdims(vector: Any, reduced: tuple[int, ...]) -> np.ndarray:
    return np.expand_dims(wide(vector), reduced)


def statistics(x: np.ndarray, weights: np.ndarray, reduced: tuple[int, ...]) -> Statistics:
    """μ = Σwx / Σw and σ² = Σw|x − μ|² / Σw. Entries without weight may be NaN; without any weight, both are 0."""
    x = np.where(weights > 0, x, 0)
    total = weights.sum(reduced, keepdims=True)
    divisor = np.where(total > 0, total, 1)
    mean = (weights * x).sum(reduced, keepdims=True) / divisor
    var = (weights * np.abs(x - mean) ** 2).sum(reduced, keepdims=True) / divisor
    return Statistics(total, mean, var)


def normalized(x: np.ndarray, group: Statistics, epsilon: float) -> np.ndarray:
    return (x - group.mean) / np.sqrt(group.var + epsilon)


def renormed(
    x_hat: np.ndarray, group: Statistics, state: Any, renorm: Any, epsilon: float, reduced: tuple[int, ...]
) -> np.ndarray:
    """x̂·r + d, with r and d from the running statistics before this update."""
    r_max, d_max = at(renorm.r_max, state.count), at(renorm.d_max, state.count)
    running = np.sqrt(keepdims(state.var, reduced) + epsilon)
    r = np.clip(np.sqrt(group.var + epsilon) / running, 1 / r_max, r_max)
    d = np.clip((group.mean - keepdims(state.mean, reduced)) / running, -d_max, d_max)
    return x_hat * r + d


def finish(
    x_hat: np.ndarray,
    params: Any,
    reduced: tuple[int, ...],
    residual: Any,
    activation: str | Callable | None,
    max_pool: Callable | None,
) -> np.ndarray:
    """γ·x̂ + β, plus the residual, through the activation, pooled."""
    y = x_hat if params.scale is None else x_hat * keepdims(params.scale, reduced)
    y = y if params.bias is None else y + keepdims(params.bias, reduced)
    y = y if residual is None else y + wide(residual)
    y = (ACTIVATIONS[activation] if isinstance(activation, str) else activation or np.array)(y)
    return y if max_pool is None else max_pool(y)


def pairs_along(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """Max pooling of pairs of neighbours; the last entry of an odd number is dropped."""

    def max_pool(y: np.ndarray) -> np.ndarray:
        size = y.shape[axis] // 2 * 2
        return np.maximum(y.take(range(0, size, 2), axis), y.take(range(1, size, 2), axis))

    return max_pool


def updated(state: Any, groups: list[Statistics], momentum: Weight, unbiased: bool, reduced: tuple[int, ...]) -> State:
    """running ← w · running + (1 − w) · batch. Groups are averaged; a group without weight does not contribute."""
    w = at(momentum, state.count)
    w = keepdims(w, reduced) if w.ndim else w
    present = np.stack([group.total > 0 for group in groups])
    number = np.maximum(present.sum(0), 1)
    mean = np.where(present, np.stack([group.mean for group in groups]), 0).sum(0) / number
    bessel = [group.total / (group.total - 1) if unbiased else 1.0 for group in groups]
    var = np.stack([group.var * factor for group, factor in zip(groups, bessel, strict=True)])
    var = np.where(present, var, 0).sum(0) / number

    def follow(old: Any, new: np.ndarray) -> np.ndarray:
        old = keepdims(old, reduced)
        return np.squeeze(np.where(present.any(0), w * old + (1 - w) * new, old), reduced)

    return State(follow(state.mean, mean), follow(state.var, var), int(state.count) + 1)


def at(value: Weight, count: Any) -> np.ndarray:
    """The value of a number, of an array or of a schedule, at this count."""
    return wide(value(int(count)) if callable(value) else value)


def cumulative() -> Callable[[int], float]:
    """The schedule of the plain average over all batches."""
    return lambda count: count / (count + 1)


def debiased(decay: float) -> Callable[[int], float]:
    """The schedule of hidden/(1 − dᵗ), where hidden ← d·hidden + (1 − d)·batch starts at 0."""
    return lambda count: decay * (1 - decay**count) / (1 - decay ** (count + 1))


def batch_norm_shards(
    params: Any,
    state: Any,
    shards: Sequence[Any],
    train: bool,
    *,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    masks: Sequence[Any] | None = None,
    residuals: Sequence[Any] | None = None,
    axis: int | Sequence[int] = -1,
    **options: Any,
) -> list[tuple[np.ndarray, Any]]:
    """The result `(y, state)` of each shard: batch normalization of the union of the shards in its group."""
    along = reduced_axes(axis, np.ndim(shards[0]))[0]
    answers: dict[int, tuple[np.ndarray, Any]] = {}
    for group in axis_index_groups or [range(len(shards))]:
        union = np.concatenate([wide(shards[i]) for i in group], along)
        given = {
            name: np.concatenate([np.broadcast_to(wide(arrays[i]), np.shape(shards[i])) for i in group], along)
            for name, arrays in (("mask", masks), ("residual", residuals))
            if arrays is not None
        }
        y, new_state = batch_norm(params, state, union, train, axis=axis, **given, **options)
        ends = np.cumsum([np.shape(shards[i])[along] for i in group])[:-1]
        answers |= {i: (part, new_state) for i, part in zip(group, np.split(y, ends, along), strict=True)}
    return [answers[i] for i in range(len(shards))]


class Gradients(NamedTuple):
    x: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def gradients(params: Any, x: Any, g: Any, *, axis: int | Sequence[int] = -1, epsilon: float = 1e-5) -> Gradients:
    """The gradients of Σ g·y in training for real x, by the equations of the paper's section 3."""
    x, g = wide(x), wide(g)
    reduced = reduced_axes(axis, x.ndim)
    m = np.prod([x.shape[a] for a in reduced])
    mean = x.mean(reduced, keepdims=True)
    centred = x - mean
    var_eps = (centred**2).mean(reduced, keepdims=True) + epsilon
    g_x_hat = g if params.scale is None else g * keepdims(params.scale, reduced)
    g_var = (g_x_hat * centred).sum(reduced, keepdims=True) * -0.5 * var_eps**-1.5
    g_mean = -g_x_hat.sum(reduced, keepdims=True) / np.sqrt(var_eps) + g_var * -2 * centred.mean(reduced, keepdims=True)
    return Gradients(
        x=g_x_hat / np.sqrt(var_eps) + g_var * 2 * centred / m + g_mean / m,
        scale=(g * centred / np.sqrt(var_eps)).sum(reduced),
        bias=g.sum(reduced),
    )
