"""Conversions of Equinox's BatchNorm: a layer's fields, and the entries of its state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxbn import _check as check
from jaxbn._schedules import debiased
from jaxbn._state import BatchNormParams, BatchNormState
from jaxbn.interop._layer import (
    Layer,
    Options,
    check_names,
    count,
    mapping,
    proportion,
    state_of,
    tracked,
    vectors,
    weight_given,
)

Mode = Literal["batch", "ema"]
Value = np.ndarray | int | tuple[np.ndarray, np.ndarray]
FIELDS: dict[Mode, tuple[str, str]] = {
    "batch": ("batch_counter", "batch_state_index"),
    "ema": ("ema_first_time_index", "ema_state_index"),
}


@dataclass(frozen=True)
class _AfterFirst:
    """The schedule that is 0 for the first batch, which replaces the initial statistics, and then constant."""

    momentum: float

    def __call__(self, count: ArrayLike) -> jax.Array:
        return jnp.where(jnp.equal(count, 0), 0.0, self.momentum)


def from_equinox(
    arrays: Mapping[str, object],
    *,
    momentum: float = 0.99,
    eps: float = 1e-5,
    updates: int = 1,
    remove_initial_variance: bool = False,
) -> Layer:
    """Convert one Equinox BatchNorm; the names of its arrays tell its mode.

    In mode "batch", Equinox keeps averages that start at 0 for the mean and at 1 for the variance. To evaluate, it
    divides both by 1 − momentumᵗ, and this conversion does the same. This division is right only for an average that
    starts at 0: the variance comes out too large by

        momentumᵗ / (1 − momentumᵗ)

    At the default momentum of 0.99, this is 99 after one step and 0.004 after a thousand. With
    `remove_initial_variance=True` it is subtracted.

    In mode "ema", the first batch replaces the statistics. Before it there are none, and the state is the initial one
    of `jaxbn.init`.

    Args:
        arrays: a mapping with `weight` and `bias` (absent or None for `channelwise_affine=False`) and with the state's
            entries for the layer's fields: `batch_counter` and `batch_state_index` (a pair), or `ema_first_time_index`
            and `ema_state_index` (a pair).
        momentum: the layer's `momentum`, the weight of the old statistic.
        eps: the layer's `eps`.
        updates: the number of training steps so far, which mode "ema" does not record; only schedules read it.
        remove_initial_variance: if True, correct the variance of mode "batch" instead of evaluating like Equinox.

    Returns:
        A `Layer` `(params, state, options)` for `jaxbn.batch_norm(params, state, x, train, **options)`.

    Raises:
        TypeError: an entry is not an array of floating numbers, a pair of them, a flag or a counter, as its name says.
        ValueError: entries are missing or unknown, or shapes disagree.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> pair = np.float32([1.5]), np.float32([2.5])
        >>> arrays = {"batch_counter": np.int32(1), "batch_state_index": pair}
        >>> interop.from_equinox(arrays, momentum=0.5).state.var
        array([5.], dtype=float32)
        >>> interop.from_equinox(arrays, momentum=0.5, remove_initial_variance=True).state.var
        array([4.], dtype=float32)

    Source: the documentation and the source text of `equinox.nn.BatchNorm`.

    Differs elsewhere: only Equinox divides an average that starts at 1.

    """
    arrays = mapping("arrays", arrays, "its weight, its bias and its entries of the state, by the names of the fields")
    mode: Mode = "ema" if any(name in arrays for name in FIELDS["ema"]) else "batch"
    options = options_from_equinox(momentum, eps, mode=mode)
    step, statistics = FIELDS[mode]
    given = {name: value for name, value in arrays.items() if value is not None}
    learned = ("weight", "bias") if "weight" in given or "bias" in given else ()
    check_names(given, (*learned, step, statistics), (), f"a layer's arrays (of mode {mode!r})")
    named = {name: given[name] for name in learned} | _pair(statistics, given[statistics])
    *vector, mean, var = vectors(named)
    params = BatchNormParams(*vector) if learned else BatchNormParams(None, None)
    names = (f"{statistics}[0]", f"{statistics}[1]")
    if mode == "ema":
        if _flag(step, given[step]):
            mean, var, updates = cast(jax.Array, np.zeros_like(mean)), cast(jax.Array, np.ones_like(var)), 0
        return Layer(params, state_of(mean, var, count("updates", updates), names), options)

    seen = count(step, given[step])
    state = state_of(mean, var, seen, names)
    if seen > 0:
        weight = weight_given(momentum, seen, state.var.dtype)
        var = np.maximum(state.var - (1 - weight), 0) if remove_initial_variance else state.var
        state = state._replace(mean=state.mean / weight, var=cast(jax.Array, var / weight))
    return Layer(params, state, options)


def to_equinox(
    params: BatchNormParams, state: BatchNormState, *, mode: Mode = "batch", momentum: float = 0.99
) -> dict[str, Value]:
    """Return the arrays of one Equinox BatchNorm, by the names of its fields: the inverse of `from_equinox`.

    In mode "batch", Equinox's averages are the running statistics times 1 − momentumᵗ, so that Equinox evaluates with
    these statistics, up to rounding; with further training in Equinox, its variance stays right. In mode "ema", the
    averages are the running statistics, bit for bit. The initial state of `jaxbn.init` gives a new layer's arrays.

    Args:
        params: γ and β, of shape (C,); both None for a layer with `channelwise_affine=False`.
        state: the running statistics, of shape (C,).
        mode: the layer's `mode`.
        momentum: the layer's `momentum`, used in mode "batch".

    Returns:
        A dictionary with `weight` and `bias`, for `equinox.tree_at`; and with `batch_counter` and `batch_state_index`,
        or `ema_first_time_index` and `ema_state_index`, for `state.set(layer.batch_counter, ...)` and so on.
        `batch_counter` is a Python int, because Equinox's state does not accept an array with a definite type for it.

    Raises:
        TypeError: `params` is not a `jaxbn.BatchNormParams`, or `state` not a `jaxbn.BatchNormState`.
        ValueError: shapes are not (C,); only one of scale and bias is None; the state is None; `mode` or `momentum` is
            out of range; in mode "batch", the count is 0 although there are statistics, which Equinox would forget.

    Example:
        >>> import jaxbn
        >>> from jaxbn import interop
        >>> for name, value in interop.to_equinox(*jaxbn.init(1)).items():
        ...     print(name, value)
        weight [1.]
        bias [0.]
        batch_counter 0
        batch_state_index (array([0.], dtype=float32), array([1.], dtype=float32))

    Source: the documentation and the source text of `equinox.nn.BatchNorm`.

    """
    options_from_equinox(momentum, mode=mode)  # raises if they are out of range
    (scale, bias), (mean, var, updates) = tracked(params, state, "Equinox")
    if (scale is None) != (bias is None):
        raise ValueError(
            "params must have both a scale and a bias or neither, as Equinox's layer; got only one. Add a scale of "
            "ones or a bias of zeros"
        )
    new = not updates and not np.any(mean) and bool(np.all(np.equal(var, 1)))
    if mode == "ema":
        pair = (np.zeros_like(mean), np.zeros_like(var)) if new else (mean, var)
        fields = dict(zip(FIELDS[mode], (np.array(new), pair), strict=True))
    else:
        if not updates and not new:
            raise ValueError(
                "state.count must be the number of updates behind the statistics; got 0. Equinox divides by "
                "1 − momentum**count, and would forget them at its next step. Pass, for example, "
                "state._replace(count=1000)"
            )
        weight = weight_given(momentum, updates, mean.dtype) if updates else np.ones((), mean.dtype)
        fields = dict(zip(FIELDS[mode], (int(updates), (mean * weight, var * weight)), strict=True))
    learned = {} if scale is None else {"weight": scale, "bias": bias}
    return cast(dict[str, Value], learned | fields)


def options_from_equinox(momentum: float = 0.99, eps: float = 1e-5, *, mode: Mode = "batch") -> Options:
    """Return the options of `jaxbn.batch_norm` that stand for the arguments of Equinox's BatchNorm.

    Two things remain different. In mode "batch", Equinox evaluates with a variance that is too large at first (see
    `from_equinox`). In mode "ema", Equinox normalises with the running statistics in training as well; for that, pass
    `renorm=jaxbn.BatchRenorm(inf, inf)`.

    Args:
        momentum: the weight of the old statistic, in [0, 1).
        eps: added to the variance under the root.
        mode: "batch", or "ema", whose first batch replaces the statistics.

    Returns:
        An `Options` dictionary. `momentum` is a schedule: `jaxbn.debiased(momentum)`, or in mode "ema" 0 for the first
        update and `momentum` from then on; `epsilon`; `unbiased=False`.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> from jaxbn import interop
        >>> keep = interop.options_from_equinox(0.75, mode="ema")["momentum"]
        >>> float(keep(0)), float(keep(1)), float(keep(2))
        (0.0, 0.75, 0.75)

    Source: the documentation and the source text of `equinox.nn.BatchNorm`.

    """
    if mode not in FIELDS:
        raise ValueError(f'mode must be "batch" or "ema"; got {mode!r}')
    decay = proportion("momentum", momentum)
    keep = debiased(decay) if mode == "batch" else _AfterFirst(decay)
    return Options(momentum=keep, epsilon=check.epsilon(eps), unbiased=False)


def _flag(name: str, value: object) -> bool:
    if (flag := np.asarray(value)).shape != () or flag.dtype != bool:
        raise TypeError(f"{name} must be a bool; got {value!r}")
    return bool(flag)


def _pair(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a pair, the mean and the variance; got {type(value).__name__}")
    return {f"{name}[{i}]": part for i, part in enumerate(value)}
