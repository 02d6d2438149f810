"""Haiku: a module's entries in the dicts of parameters and of state."""

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
    """Converts one Haiku BatchNorm.

    Haiku keeps each statistic twice: `hidden`, an average that begins at 0, and `average` = hidden / (1 − decayᵗ),
    which it evaluates with. `average` is what is taken here, bit for bit; `jaxbn.debiased(decay_rate)` continues it.

    Args:
        params: Haiku's parameters, by module: of this norm alone, or of a whole network.
        state: Haiku's state, by module.
        name: the norm's module, such as "res_net50/~/initial_batchnorm".
        decay_rate: as the module has it: the weight of the old statistic.
        eps: as the module has it.
        axis: the channel axis: −1, or 1 for a module with `data_format="channels_first"`.

    Returns:
        `(params, state, options)` for `jaxbn.batch_norm(params, state, x, train, **options)`, vectors of shape (C,).

    Raises:
        TypeError: an entry is not an array of floating numbers, or a counter not an integer.
        ValueError: entries are missing or unknown; shapes do not agree; the two counters differ.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> def average(value):
        ...     return {"average": np.float32([[value]]), "hidden": np.float32([[value / 2]]), "counter": np.int32(1)}
        >>> state = {"batch_norm/~/mean_ema": average(3.0), "batch_norm/~/var_ema": average(4.0)}
        >>> params, state, options = interop.from_haiku({}, state, decay_rate=0.5)
        >>> print(params.scale, state.mean, state.var, state.count)
        None [3.] [4.] 1

    """
    options = options_from_haiku(decay_rate, eps)
    params = mapping("params", params, "the dict of parameters that the network's init returned")
    state = mapping("state", state, "the dict of state that the network's init or apply returned")
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
        raise ValueError(f"both averages must have seen as many batches; got {listed(counters)}")

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
    """Gives a Haiku BatchNorm's entries in the dicts of parameters and of state.

    `average` and `counter` are ours, bit for bit; `hidden` = average · (1 − decayᵗ) is computed in Haiku's precision,
    and so equals what Haiku had up to rounding. With a count of 0, Haiku forgets the statistics at its first update,
    as `jaxbn.debiased` does.

    Args:
        params: a scale that is None belongs to a module with `create_scale=False`, a bias to `create_offset=False`.
        state: the running statistics.
        name: the norm's module in the network.
        decay_rate: as the module has it.
        ndim: the dimensions of what is normalised, 4 for images: Haiku's vectors have shape (1, 1, 1, C) then.
        axis: the channel axis.

    Returns:
        `(params, state)`, dicts by module, to be merged into a whole network's. There is no entry in `params` where
        nothing is learned.

    Raises:
        TypeError: `params` or `state` is something else.
        ValueError: shapes are not (C,); `decay_rate`, `ndim` or `axis` is out of its range; the state is None.

    Example:
        >>> import jaxbn
        >>> from jaxbn import interop
        >>> params, state = interop.to_haiku(*jaxbn.init(3), decay_rate=0.99)
        >>> print(params["batch_norm"]["scale"].shape, state["batch_norm/~/var_ema"]["average"].ravel())
        (1, 1, 1, 3) [1. 1. 1.]

    """
    options_from_haiku(decay_rate)  # raises where it is out of its range
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
    """Gives the options that update and normalise as Haiku's BatchNorm with these arguments does.

    Args:
        decay_rate: the weight of the old statistic, in [0, 1).
        eps: added to the variance.

    Returns:
        `momentum=jaxbn.debiased(decay_rate)`, `epsilon` and `unbiased=False`.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of its range.

    Example:
        >>> from jaxbn import interop
        >>> options = interop.options_from_haiku(0.9)
        >>> round(float(options["momentum"](1)), 3), options["epsilon"]
        (0.474, 1e-05)

    """
    return Options(momentum=debiased(proportion("decay_rate", decay_rate)), epsilon=check.epsilon(eps), unbiased=False)


def _squeezed(named: Mapping[str, object], axis: int) -> Iterable[jax.Array]:
    """Vectors, from arrays whose only axis of more than one entry is the channels'."""
    arrays = {name: array(name, value) for name, value in named.items()}
    shapes = {name: value.shape for name, value in arrays.items()}
    shape = next(iter(shapes.values()))
    (feature,) = feature_axes(axis, len(shape))
    if len(set(shapes.values())) > 1 or any(size != 1 for i, size in enumerate(shape) if i != feature):
        raise ValueError(
            f"all must have one shape, of size 1 but for the channels on axis {axis}, such as (1, 1, 1, C); "
            f"got {listed(shapes)}"
        )
    return [value.reshape(-1) for value in arrays.values()]
