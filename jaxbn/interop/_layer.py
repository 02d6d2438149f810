"""What every conversion gives, and what all of them check."""

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
    """The options of `jaxbn.batch_norm` that make it update and normalise as the other library does.

    Example:
        >>> from jaxbn import interop
        >>> interop.options_from_torch(momentum=0.25, eps=1e-3)
        {'momentum': 0.75, 'epsilon': 0.001, 'unbiased': True}

    """

    momentum: float | Schedule
    epsilon: float | jax.Array
    unbiased: bool


class Layer(NamedTuple):
    """One batch normalization as `jaxbn.batch_norm` takes it; the arrays are NumPy's, copies of those given.

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
    state: BatchNormState | None  # None where the library tracks nothing
    options: Options


def array(name: str, value: object) -> jax.Array:
    """A copy of a floating array, as NumPy's: what is trained further there does not change here."""
    if not hasattr(value, "__array__"):
        raise TypeError(f"{name} must be an array; got {type(value).__name__}. Convert it first: numpy.asarray(...)")
    try:
        result = np.asarray(value).copy()  # not np.array(value), which asks others to copy, as they may not know how
    except (TypeError, RuntimeError) as error:  # PyTorch's, for tensors on a GPU, with a gradient, in bfloat16
        raise TypeError(
            f"{name} cannot be read as a NumPy array ({error}). Convert it first; a tensor of PyTorch by "
            "tensor.detach().cpu().float().numpy()"
        ) from error
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating; got {result.dtype.name}")
    if not can_compute(result.dtype):
        raise TypeError(f"{name} must have 16 bits at least; got {result.dtype.name}. Convert it to float32 first")
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
    """Floating arrays of one dimension and one length."""
    arrays = {name: array(name, value) for name, value in named.items()}
    shapes = {name: value.shape for name, value in arrays.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        raise ValueError(f"all must have one shape (C,), C being the number of channels; got {listed(shapes)}")
    return list(arrays.values())


def mapping(name: str, value: object, instead: str) -> Mapping:
    """A mapping from names; `instead` is what to pass in place of a layer."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping from names; got {type(value).__name__}. Pass {instead}")
    return value


def state_of(
    mean: jax.Array, var: jax.Array, updates: jax.Array, names: tuple[str, str], hint: str = ""
) -> BatchNormState:
    """The state; statistics in half precision become float32, which holds them exactly."""
    check_statistics(mean, var, names, hint)
    return BatchNormState(mean.astype(promote(mean.dtype)), var.astype(promote(var.dtype)), updates)


def check_statistics(mean: jax.Array, var: jax.Array, names: tuple[str, str], hint: str = "") -> None:
    """Raises where a layer would evaluate to NaN: a mean is NaN, or a variance is NaN or negative."""
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
    """Our arrays as NumPy's, copied, once they are found to fit each other."""
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
    """The same, for a library that always has running statistics."""
    learned, statistics = own(params, state)
    if statistics is None:
        raise ValueError(
            f"state must not be None: {library} always has running statistics. Where nothing is tracked, pass those "
            "that a layer begins with: jaxbn.init(num_features)[1]"
        )
    return learned, statistics


def weight_given(decay: float, updates: jax.Array, dtype: np.dtype) -> np.ndarray:
    """1 − decayᵗ, in the precision that Haiku and Equinox compute it in."""
    one = np.ones((), dtype)
    return one - np.power(one * dtype.type(decay), dtype.type(updates))


def check_names(found: Iterable[object], required: Iterable[str], optional: Iterable[str], place: str) -> None:
    """Raises where a name is missing, or where one is unknown."""
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
    """Names and values as a person reads them."""
    return ", ".join(f"{name} {value}" for name, value in items.items())
