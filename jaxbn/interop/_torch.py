"""Conversions of PyTorch's BatchNorm: the entries of a state dict."""

from collections.abc import Mapping
from typing import cast

import numpy as np

from jaxbn import _check as check
from jaxbn._schedules import cumulative
from jaxbn._state import BatchNormParams, BatchNormState
from jaxbn.interop._layer import Layer, Options, check_names, count, mapping, own, proportion, state_of, vectors

LEARNED, STATISTICS, COUNT = ("weight", "bias"), ("running_mean", "running_var"), "num_batches_tracked"


def from_torch(
    entries: Mapping[str, object], prefix: str = "", *, momentum: float | None = 0.1, eps: float = 1e-5
) -> Layer:
    """Convert the entries of one PyTorch BatchNorm from a state dict.

    The conversion is lossless: `to_torch` returns the same entries, bit for bit, except that statistics in half
    precision become float32, which holds them exactly. Without `weight` and `bias` (`affine=False`), the parameters are
    None; without `running_mean`, `running_var` and `num_batches_tracked` (`track_running_stats=False`), the state is
    None.

    Args:
        entries: a state dict, or any mapping from names to arrays or CPU tensors, such as the content of a safetensors
            file.
        prefix: the part before the names in the state dict of a network, such as "layer1.0.bn1." (the last dot may be
            left out).
        momentum: the layer's `momentum`, which the state dict does not contain: the weight of the new statistic, or
            None.
        eps: the layer's `eps`, which the state dict does not contain.

    Returns:
        A `Layer` `(params, state, options)`. `jaxbn.batch_norm(params, state, x, train, **options)` trains and
        evaluates like the layer for `x` with the channels last; pass `axis=1` for channels first.

    Raises:
        TypeError: an entry is not an array of floating numbers, or the count is not an integer.
        ValueError: entries are missing or unknown, or shapes disagree. `num_batches_tracked` may be missing, as in
            checkpoints from before PyTorch 0.4.1, and is then 0; but not with `momentum=None`, which reads it.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> entries = {"bn.weight": np.ones(2), "bn.bias": np.zeros(2), "bn.running_mean": np.zeros(2),
        ...            "bn.running_var": np.ones(2), "bn.num_batches_tracked": np.array(7), "fc.bias": np.zeros(9)}
        >>> params, state, options = interop.from_torch(entries, "bn.")
        >>> print(params.scale, state.count, options["momentum"])
        [1. 1.] 7 0.9

    Source: the documentation of `torch.nn.BatchNorm2d`.

    Differs elsewhere: PyTorch's momentum is the weight of the new statistic, and its running variance is unbiased; the
    returned options say so.

    """
    options = options_from_torch(momentum, eps)
    prefix = _dotted(prefix)
    entries = mapping("entries", entries, "its state_dict()")
    found = {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
    if prefix and not found:
        raise ValueError(f"prefix must begin the name of an entry; got {prefix!r}. {_places(entries)}")
    tracks = any(name in found for name in (*STATISTICS, COUNT))
    learned = LEARNED[:1] if "bias" in found else ()  # a weight may stand alone, a bias may not
    required = (*learned, *(STATISTICS if tracks else ()))
    place = f"the entries with prefix {prefix!r}" if prefix else f"a BatchNorm's entries ({_places(entries)})"
    check_names(found, required, tuple(n for n in (*LEARNED, *STATISTICS, COUNT) if n not in required), place)
    if tracks and momentum is None and COUNT not in found:
        raise ValueError(
            f"entries must hold {prefix}{COUNT}, since momentum=None averages over that many batches; it is missing. "
            "Add it"
        )

    names = [name for name in (*LEARNED, *STATISTICS) if name in found]
    arrays = dict(zip(names, vectors({prefix + name: found[name] for name in names}), strict=True))
    params = BatchNormParams(arrays.get("weight"), arrays.get("bias"))
    if not tracks:
        return Layer(params, None, options)
    updates = count(prefix + COUNT, found.get(COUNT, 0))
    mean, var = (arrays[name] for name in STATISTICS)
    names = (prefix + STATISTICS[0], prefix + STATISTICS[1])
    return Layer(params, state_of(mean, var, updates, names), options)


def to_torch(params: BatchNormParams, state: BatchNormState | None, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the entries of one PyTorch BatchNorm for a state dict: the inverse of `from_torch`.

    Args:
        params: γ and β, of shape (C,). Both None give the entries of a layer with `affine=False`; only the bias None,
            those of a layer with `bias=False`.
        state: the running statistics, of shape (C,); None for a layer with `track_running_stats=False`.
        prefix: the part before the names, such as "layer1.0.bn1." (the last dot may be left out).

    Returns:
        A dictionary from names to NumPy arrays; `num_batches_tracked` is int64, as in PyTorch. Make tensors of them
        with `torch.from_numpy`.

    Raises:
        TypeError: `params` is not a `jaxbn.BatchNormParams`, or `state` not a `jaxbn.BatchNormState`.
        ValueError: shapes are not (C,), or there is a bias without a scale, which PyTorch does not have.

    Example:
        >>> import jaxbn
        >>> from jaxbn import interop
        >>> for name, value in interop.to_torch(*jaxbn.init(2), prefix="bn1").items():
        ...     print(name, value)
        bn1.weight [1. 1.]
        bn1.bias [0. 0.]
        bn1.running_mean [0. 0.]
        bn1.running_var [1. 1.]
        bn1.num_batches_tracked 0

    Source: the documentation of `torch.nn.BatchNorm2d`.

    """
    (scale, bias), statistics = own(params, state)
    if scale is None and bias is not None:
        raise ValueError(
            "params must not have a bias without a scale, since PyTorch's BatchNorm cannot; got scale=None. Pass a "
            "scale of ones: params._replace(scale=numpy.ones_like(params.bias))"
        )
    given = dict(zip(LEARNED, (scale, bias), strict=True))
    if statistics is not None:
        given |= dict(zip((*STATISTICS, COUNT), statistics, strict=True))
        given[COUNT] = statistics.count.astype(np.int64)
    return {_dotted(prefix) + name: cast(np.ndarray, value) for name, value in given.items() if value is not None}


def options_from_torch(momentum: float | None = 0.1, eps: float = 1e-5) -> Options:
    """Return the options of `jaxbn.batch_norm` that stand for the arguments of PyTorch's BatchNorm.

    Args:
        momentum: m, the weight of the new statistic, in [0, 1]; None for the average over all batches.
        eps: added to the variance under the root.

    Returns:
        An `Options` dictionary: `momentum` is 1 − m, or `jaxbn.cumulative()` for None; `epsilon`; `unbiased=True`.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> from jaxbn import interop
        >>> interop.options_from_torch(momentum=0.1)
        {'momentum': 0.9, 'epsilon': 1e-05, 'unbiased': True}

    Source: the documentation of `torch.nn.BatchNorm2d`.

    Differs elsewhere: PyTorch's momentum is the weight of the new statistic, and its running variance is unbiased.

    """
    keep = cumulative() if momentum is None else 1 - proportion("momentum", momentum)
    return Options(momentum=keep, epsilon=check.epsilon(eps), unbiased=True)


def _dotted(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith(".") else prefix + "."


def _places(entries: Mapping[str, object]) -> str:
    """The prefixes of the norms in the entries, for an error message."""
    prefixes = [name.removesuffix("running_mean") for name in entries if name.endswith(".running_mean")]
    shown = ", ".join(map(repr, prefixes[:5])) + (f" and {len(prefixes) - 5} more" if len(prefixes) > 5 else "")
    return f"prefixes that have a running_mean: {shown}" if prefixes else "no prefix has a running_mean"
