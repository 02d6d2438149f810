"""The result of every conversion, and the checks that all conversions share."""

import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import NamedTuple, TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn import _check as check
from jaxbn._dtypes import can_compute, promote
from jaxbn._schedules import Schedule
from jaxbn._state import BatchNormParams, BatchNormState

MOST_UPDATES = np.iinfo(np.int32).max


class Options(TypedDict):
    """The options of `jaxbn.batch_norm` with which it updates and normalises like the other library.

    Attributes:
        momentum: the weight kept by the old running statistic: a number or a schedule.
        epsilon: added to the variance under the root.
        unbiased: whether the running variance takes the m/(m−1) estimate.

    Example:
        >>> from jaxbn import interop
        >>> interop.options_from_torch(momentum=0.25, eps=1e-3)
        {'momentum': 0.75, 'epsilon': 0.001, 'unbiased': True}

    """

    momentum: float | Schedule
    epsilon: float | jax.Array
    unbiased: bool


class Layer(NamedTuple):
    """One converted batch normalization, in the form that `jaxbn.batch_norm` takes.

    Attributes:
        params: γ and β, of shape (C,): NumPy arrays, copies of those given.
        state: the running statistics, of shape (C,); None if the layer tracks none.
        options: the options of `jaxbn.batch_norm` that stand for those of the layer.

    Example:
        >>> import numpy as np
        >>> import jaxbn
        >>> from jaxbn import interop
        >>> statistics = {"running_mean": np.float32([3.0]), "running_var": np.float32([4.0])}
        >>> params, state, options = interop.from_torch(statistics)
        >>> y, _ = jaxbn.batch_norm(params, state, np.float32([[7.0]]), train=False, **options)
        >>> print(y.round(3))
        [[2.]]

    """

    params: BatchNormParams
    state: BatchNormState | None
    options: Options


def array(name: str, value: object) -> jax.Array:
    """A copy of a floating array as a NumPy array, which further training in the other library does not change."""
    if not hasattr(value, "__array__"):
        raise TypeError(f"{name} must be an array; got {type(value).__name__}. Convert it first: numpy.asarray(...)")
    try:
        result = np.asarray(value).copy()  # np.array(value) would ask the other library to copy, which may fail
    except (TypeError, RuntimeError) as error:  # PyTorch's, for tensors on a GPU, with a gradient, or in bfloat16
        raise TypeError(
            f"{name} must be readable as a NumPy array; got an error ({error}). Convert it first, a PyTorch tensor "
            "with tensor.detach().cpu().float().numpy()"
        ) from error
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating; got {result.dtype.name}")
    if not can_compute(result.dtype):
        raise TypeError(f"{name} must have at least 16 bits; got {result.dtype.name}. Convert it to float32 first")
    return cast(jax.Array, result)


def proportion(name: str, value: object) -> float:
    """The weight of one of two statistics, as a Python float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in [0, 1]; got {value!r}")
    if not 0 <= (weight := float(value)) <= 1:
        raise ValueError(f"{name} must be in [0, 1]; got {value!r}")
    return weight


def count(name: str, value: object) -> jax.Array:
    """A number of updates as an int32 scalar."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    try:
        number = operator.index(cast(int, value))
    except TypeError:
        raise TypeError(f"{name} must be one integer; got {value!r}") from None
    if not 0 <= number <= MOST_UPDATES:
        raise ValueError(f"{name} must be from 0 to {MOST_UPDATES}, the largest count of a state; got {number}")
    return cast(jax.Array, np.array(number, np.int32))


def vectors(named: Mapping[str, object]) -> list[jax.Array]:
    """The values as floating arrays of one dimension; raises if their lengths differ."""
    arrays = {name: array(name, value) for name, value in named.items()}
    shapes = {name: value.shape for name, value in arrays.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        raise ValueError(f"all must have the same shape (C,), with C the number of channels; got {listed(shapes)}")
    return list(arrays.values())


def mapping(name: str, value: object, instead: str) -> Mapping:
    """The value, which must be a mapping from names; the error tells what to pass `instead` of a layer."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping from names; got {type(value).__name__}. Pass {instead}")
    return value


def state_of(
    mean: jax.Array, var: jax.Array, updates: jax.Array, names: tuple[str, str], hint: str = ""
) -> BatchNormState:
    """The state, in which statistics in half precision become float32, which holds them exactly."""
    check_statistics(mean, var, names, hint)
    return BatchNormState(mean.astype(promote(mean.dtype)), var.astype(promote(var.dtype)), updates)


def check_statistics(mean: jax.Array, var: jax.Array, names: tuple[str, str], hint: str = "") -> None:
    """Raise if a layer would evaluate to NaN, because a mean is NaN or a variance is NaN or negative."""
    for name, vector, wrong, what in (
        (names[0], mean, np.isnan(mean), "NaN"),
        (names[1], var, np.isnan(var) | np.less(var, 0), "negative or NaN"),
    ):
        if channels := np.flatnonzero(wrong).tolist():
            first, more = channels[0], f", and in {len(channels) - 1} more" if len(channels) > 1 else ""
            raise ValueError(
                f"{name} must not be {what}; it is {np.asarray(vector).flat[first]} in channel {first}{more}. "
                f"{hint or 'Such a layer evaluates to NaN: recalibrate it, or take an earlier checkpoint'}"
            )


def own(params: BatchNormParams, state: BatchNormState | None) -> tuple[BatchNormParams, BatchNormState | None]:
    """The parameters and the state as copied NumPy arrays; raises if they do not fit each other."""
    named = check.values(params, state)
    found = dict(zip(named, vectors(named), strict=True))
    if state is None:
        return BatchNormParams(found.get("params.scale"), found.get("params.bias")), None
    updates = count("state.count", np.asarray(state.count))
    check_statistics(found["state.mean"], found["state.var"], ("state.mean", "state.var"))
    copied = BatchNormState(found["state.mean"], found["state.var"], updates)
    return BatchNormParams(found.get("params.scale"), found.get("params.bias")), copied


def tracked(
    params: BatchNormParams, state: BatchNormState | None, library: str
) -> tuple[BatchNormParams, BatchNormState]:
    """Like `own`, for a library that always has running statistics."""
    learned, statistics = own(params, state)
    if statistics is None:
        raise ValueError(
            f"state must be a jaxbn.BatchNormState, since {library} always has running statistics; got None. If none "
            "are tracked, pass the initial ones: jaxbn.init(num_features)[1]"
        )
    return learned, statistics


def weight_given(decay: float, updates: jax.Array, dtype: np.dtype) -> np.ndarray:
    """1 − decayᵗ, computed in the precision of Haiku and Equinox."""
    one = np.ones((), dtype)
    return one - np.power(one * dtype.type(decay), dtype.type(updates))


def check_names(found: Iterable[object], required: Iterable[str], optional: Iterable[str], place: str) -> None:
    """Raise if a name is missing or unknown."""
    found, required, optional = list(found), list(required), list(optional)
    missing = [name for name in required if name not in found]
    unknown = [str(name) for name in found if name not in required and name not in optional]
    if missing or unknown:
        faults = [
            f"{what} {', '.join(names)}" for what, names in (("lacks", missing), ("has unknown", unknown)) if names
        ]
        raise ValueError(
            f"{place} must hold {', '.join(required) or 'nothing else'}"
            f"{' and may hold ' + ', '.join(optional) if optional else ''}; it {' and '.join(faults)}"
        )


def listed(items: Mapping[str, object]) -> str:
    """The names and values as text for a message."""
    return ", ".join(f"{name} {value}" for name, value in items.items())
