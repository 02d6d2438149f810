"""Keras: the list of a layer's weights."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from jaxbn import _check as check
from jaxbn._state import BatchNormParams, BatchNormState
from jaxbn.interop._layer import Layer, Options, count, proportion, state_of, tracked, vectors

NAMES = ("gamma", "beta", "moving_mean", "moving_variance")


def from_keras(
    weights: Sequence[object],
    *,
    scale: bool = True,
    center: bool = True,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    updates: int = 0,
) -> Layer:
    """Converts the `weights` of a Keras BatchNormalization, or what its `get_weights()` gives.

    Lossless: `to_keras` gives the same list back, bit for bit (statistics in half precision become float32).

    Args:
        weights: gamma, beta, moving_mean, moving_variance, in this order, without what the layer does not have.
        scale: as the layer has it: whether there is a gamma.
        center: as the layer has it: whether there is a beta.
        momentum: as the layer has it: the weight of the old statistic.
        epsilon: as the layer has it; 1e-3 by default in Keras.
        updates: the number of training steps so far, which Keras does not record; only schedules read it.

    Returns:
        `(params, state, options)` for `jaxbn.batch_norm(params, state, x, train, **options)`.

    Raises:
        TypeError: one of the weights is not an array of floating numbers.
        ValueError: their number is not what `scale` and `center` make it; shapes do not agree;
            a variance is negative or NaN.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> weights = [np.float32([2.0]), np.float32([5.0]), np.float32([9.0])]  # beta, mean, variance
        >>> params, state, options = interop.from_keras(weights, scale=False)
        >>> print(params, state.mean, options["epsilon"])
        BatchNormParams(scale=None, bias=array([2.], dtype=float32)) [5.] 0.001

    """
    options = options_from_keras(momentum, epsilon)
    names = [name for name, has in zip(NAMES, (scale, center, True, True), strict=True) if has]
    if not isinstance(weights, Sequence):
        raise TypeError(f"weights must be a list of arrays; got {type(weights).__name__}. Pass layer.get_weights()")
    if len(weights) != len(names):
        raise ValueError(
            f"weights must be the {len(names)} arrays {', '.join(names)}, in this order; got {len(weights)}. A layer "
            "with scale=False or center=False has fewer: pass the same here. (One with renorm=True has three more, "
            "after these: leave them out)"
        )
    arrays = dict(zip(names, vectors(dict(zip(names, weights, strict=True))), strict=True))
    params = BatchNormParams(arrays.get("gamma"), arrays.get("beta"))
    hint = f"Are the weights in the order {', '.join(names)}?"
    mean, var, seen = arrays[NAMES[2]], arrays[NAMES[3]], count("updates", updates)
    return Layer(params, state_of(mean, var, seen, NAMES[2:], hint), options)


def to_keras(params: BatchNormParams, state: BatchNormState) -> list[np.ndarray]:
    """Gives the list that `set_weights` of a Keras BatchNormalization takes.

    Args:
        params: a scale that is None belongs to a layer with `scale=False`, a bias that is None to `center=False`.
        state: the running statistics. Keras keeps no count: it is left out.

    Returns:
        gamma, beta, moving_mean, moving_variance, as NumPy arrays, without what is None.

    Raises:
        TypeError: `params` or `state` is something else.
        ValueError: shapes are not (C,), or the state is None: Keras always has running statistics.

    Example:
        >>> import jaxbn
        >>> from jaxbn import interop
        >>> print(*interop.to_keras(*jaxbn.init(2)))
        [1. 1.] [0. 0.] [0. 0.] [1. 1.]

    """
    (scale, bias), (mean, var, _) = tracked(params, state, "Keras")
    return [cast(np.ndarray, value) for value in (scale, bias, mean, var) if value is not None]


def options_from_keras(momentum: float = 0.99, epsilon: float = 1e-3) -> Options:
    """Gives the options that update and normalise as Keras' BatchNormalization with these arguments does.

    Args:
        momentum: the weight of the old statistic, in [0, 1].
        epsilon: added to the variance; 1e-3 by default in Keras.

    Returns:
        the same `momentum` and `epsilon`, and `unbiased=False`.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of its range.

    Example:
        >>> from jaxbn import interop
        >>> interop.options_from_keras()
        {'momentum': 0.99, 'epsilon': 0.001, 'unbiased': False}

    """
    return Options(momentum=proportion("momentum", momentum), epsilon=check.epsilon(epsilon), unbiased=False)
