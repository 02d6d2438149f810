"""Conversions of Haiku's BatchNorm: a module's entries in the dictionaries of parameters and of state."""

from collections.abc import Iterable, Mapping

import jax
import numpy as np

from jaxbn import _check as check
from jaxbn._axes import feature_axes
from jaxbn._schedules import debiased
from jaxbn._state import BatchNormParams, BatchNormState
from jaxbn.interop._layer import (
    Layer,
    Options,
    array,
    check_names,
    count,
    listed,
    mapping,
    proportion,
    state_of,
    tracked,
    weight_given,
)

AVERAGES, KEYS = ("mean_ema", "var_ema"), ("average", "hidden", "counter")
Tree = Mapping[str, Mapping[str, object]]


def from_haiku(
    params: Tree, state: Tree, name: str = "batch_norm", *, decay_rate: float, eps: float = 1e-5, axis: int = -1
) -> Layer:
    """Convert one Haiku BatchNorm.

    Haiku keeps each statistic twice, as `hidden`, an average that starts at 0, and as `average`, which it evaluates
    with:

        average = hidden / (1 − decay_rateᵗ)

    The state takes `average`, bit for bit, and the schedule `jaxbn.debiased(decay_rate)` continues it.

    Args:
        params: Haiku's parameters by module, of this norm alone or of a whole network.
        state: Haiku's state by module.
        name: the name of the norm's module, such as "res_net50/~/initial_batchnorm".
        decay_rate: the module's `decay_rate`, the weight of the old statistic.
        eps: the module's `eps`.
        axis: the channel axis: −1, or 1 for a module with `data_format="channels_first"`.

    Returns:
        A `Layer` `(params, state, options)` for `jaxbn.batch_norm(params, state, x, train, **options)`, with vectors of
        shape (C,).

    Raises:
        TypeError: an entry is not an array of floating numbers, or a counter is not an integer.
        ValueError: entries are missing or unknown; shapes disagree; the two counters differ.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> def average(value):
        ...     return {"average": np.float32([[value]]), "hidden": np.float32([[value / 2]]), "counter": np.int32(1)}
        >>> state = {"batch_norm/~/mean_ema": average(3.0), "batch_norm/~/var_ema": average(4.0)}
        >>> params, state, options = interop.from_haiku({}, state, decay_rate=0.5)
        >>> print(params.scale, state.mean, state.var, state.count)
        None [3.] [4.] 1

    Source: the documentation of `haiku.BatchNorm` and `haiku.ExponentialMovingAverage`.

    Differs elsewhere: Haiku's averages start at 0 and are corrected for it; most libraries start at mean 0 and variance
    1 and are not.

    """
    options = options_from_haiku(decay_rate, eps)
    params = mapping("params", params, "the dictionary of parameters that the network's init returned")
    state = mapping("state", state, "the dictionary of states that the network's init or apply returned")
    modules = [f"{name}/~/{average}" for average in AVERAGES]
    if any(module not in state for module in modules):
        known = [key.removesuffix("/~/mean_ema") for key in state if key.endswith("/~/mean_ema")]
        raise ValueError(
            f"state must hold {' and '.join(modules)}; norms found in it: {', '.join(map(repr, known)) or 'none'}"
        )
    learned = params.get(name, {})
    check_names(learned, (), ("scale", "offset"), f"params[{name!r}]")
    found = {f"{name}/{key}": learned[key] for key in ("scale", "offset") if key in learned}
    for module in modules:
        check_names(state[module], KEYS, (), f"state[{module!r}]")
        found |= {f"{module}/{key}": state[module][key] for key in KEYS[:2]}
    vectors = dict(zip(found, _squeezed(found, axis), strict=True))
    counters = {f"{module}/counter": int(count(f"{module}/counter", state[module]["counter"])) for module in modules}
    if len(set(counters.values())) > 1:
        raise ValueError(f"the counters of both averages must be equal; got {listed(counters)}")

    mean, var = (vectors[f"{module}/average"] for module in modules)
    updates = count("counter", next(iter(counters.values())))
    own = BatchNormParams(vectors.get(f"{name}/scale"), vectors.get(f"{name}/offset"))
    names = (f"{modules[0]}/average", f"{modules[1]}/average")
    return Layer(own, state_of(mean, var, updates, names), options)


def to_haiku(
    params: BatchNormParams,
    state: BatchNormState,
    name: str = "batch_norm",
    *,
    decay_rate: float,
    ndim: int = 4,
    axis: int = -1,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
    """Return the entries of one Haiku BatchNorm for the dictionaries of parameters and of state.

    `average` and `counter` are those of the state, bit for bit, and the hidden average is

        hidden = average · (1 − decay_rateᵗ)

    It is computed in Haiku's precision and equals Haiku's own up to rounding. With a count of 0, Haiku forgets the
    statistics at its first update, as `jaxbn.debiased` does.

    Args:
        params: γ and β, of shape (C,). A scale of None is for a module with `create_scale=False`, a bias of None for
            one with `create_offset=False`.
        state: the running statistics, of shape (C,).
        name: the name of the norm's module in the network.
        decay_rate: the module's `decay_rate`.
        ndim: the number of dimensions of the module's input: 4 for images, for which Haiku's vectors have shape
            (1, 1, 1, C).
        axis: the channel axis.

    Returns:
        `(params, state)`, dictionaries by module, to be merged into those of a whole network. If nothing is learned,
        `params` is empty.

    Raises:
        TypeError: `params` is not a `jaxbn.BatchNormParams`, or `state` not a `jaxbn.BatchNormState`.
        ValueError: shapes are not (C,); `decay_rate`, `ndim` or `axis` is out of range; the state is None.

    Example:
        >>> import jaxbn
        >>> from jaxbn import interop
        >>> params, state = interop.to_haiku(*jaxbn.init(3), decay_rate=0.99)
        >>> print(params["batch_norm"]["scale"].shape, state["batch_norm/~/var_ema"]["average"].ravel())
        (1, 1, 1, 3) [1. 1. 1.]

    Source: the documentation of `haiku.BatchNorm` and `haiku.ExponentialMovingAverage`.

    """
    options_from_haiku(decay_rate)  # raises if it is out of range
    (feature,) = feature_axes(axis, ndim)
    shape = tuple(-1 if dimension == feature else 1 for dimension in range(ndim))
    (scale, bias), (mean, var, updates) = tracked(params, state, "Haiku")
    learned = {
        key: np.reshape(value, shape) for key, value in (("scale", scale), ("offset", bias)) if value is not None
    }
    averages = {}
    for module, statistic in zip(AVERAGES, (mean, var), strict=True):
        average = np.reshape(statistic, shape)
        hidden = average * weight_given(decay_rate, updates, average.dtype)
        values = zip(KEYS, (average, hidden, np.array(updates)), strict=True)
        averages[f"{name}/~/{module}"] = dict(values)
    return ({name: learned} if learned else {}), averages


def options_from_haiku(decay_rate: float, eps: float = 1e-5) -> Options:
    """Return the options of `jaxbn.batch_norm` that stand for the arguments of Haiku's BatchNorm.

    Args:
        decay_rate: the weight of the old statistic, in [0, 1).
        eps: added to the variance under the root.

    Returns:
        An `Options` dictionary with `momentum=jaxbn.debiased(decay_rate)`, `epsilon` and `unbiased=False`.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> from jaxbn import interop
        >>> options = interop.options_from_haiku(0.9)
        >>> round(float(options["momentum"](1)), 3), options["epsilon"]
        (0.474, 1e-05)

    Source: the documentation of `haiku.BatchNorm` and `haiku.ExponentialMovingAverage`.

    """
    return Options(momentum=debiased(proportion("decay_rate", decay_rate)), epsilon=check.epsilon(eps), unbiased=False)


def _squeezed(named: Mapping[str, object], axis: int) -> Iterable[jax.Array]:
    """Vectors, from arrays that have size one on all axes except the channel axis."""
    arrays = {name: array(name, value) for name, value in named.items()}
    shapes = {name: value.shape for name, value in arrays.items()}
    shape = next(iter(shapes.values()))
    (feature,) = feature_axes(axis, len(shape))
    if len(set(shapes.values())) > 1 or any(size != 1 for i, size in enumerate(shape) if i != feature):
        raise ValueError(
            f"all must have the same shape, of size 1 except for the channels on axis {axis}, such as (1, 1, 1, C); "
            f"got {listed(shapes)}"
        )
    return [value.reshape(-1) for value in arrays.values()]
