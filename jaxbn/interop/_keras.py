"""Conversions of Keras' BatchNormalization: the list of a layer's weights."""

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
    """Convert the weights of one Keras BatchNormalization.

    The conversion is lossless: `to_keras` returns the same list, bit for bit, except that statistics in half precision
    become float32.

    Args:
        weights: the layer's `weights`, or the result of its `get_weights()`: gamma, beta, moving_mean and
            moving_variance, in this order, without those that the layer does not have.
        scale: the layer's `scale`: whether there is a gamma.
        center: the layer's `center`: whether there is a beta.
        momentum: the layer's `momentum`, the weight of the old statistic.
        epsilon: the layer's `epsilon`, by default 1e-3 in Keras.
        updates: the number of training steps so far, which Keras does not record; only schedules read it.

    Returns:
        A `Layer` `(params, state, options)` for `jaxbn.batch_norm(params, state, x, train, **options)`.

    Raises:
        TypeError: one of the weights is not an array of floating numbers.
        ValueError: the number of weights contradicts `scale` and `center`; shapes disagree; a variance is negative or
            NaN.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> weights = [np.float32([2.0]), np.float32([5.0]), np.float32([9.0])]  # beta, mean, variance
        >>> params, state, options = interop.from_keras(weights, scale=False)
        >>> print(params, state.mean, options["epsilon"])
        BatchNormParams(scale=None, bias=array([2.], dtype=float32)) [5.] 0.001

    Source: the documentation of `keras.layers.BatchNormalization`.

    Differs elsewhere: the default epsilon of Keras is 1e-3, that of all other libraries here 1e-5.

    """
    options = options_from_keras(momentum, epsilon)
    names = [name for name, has in zip(NAMES, (scale, center, True, True), strict=True) if has]
    if not isinstance(weights, Sequence):
        raise TypeError(f"weights must be a list of arrays; got {type(weights).__name__}. Pass layer.get_weights()")
    if len(weights) != len(names):
        raise ValueError(
            f"weights must be the {len(names)} arrays {', '.join(names)}, in this order; got {len(weights)}. For a "
            "layer with scale=False or center=False, pass the same option here. For a layer with renorm=True, leave "
            "out the three last arrays"
        )
    arrays = dict(zip(names, vectors(dict(zip(names, weights, strict=True))), strict=True))
    params = BatchNormParams(arrays.get("gamma"), arrays.get("beta"))
    hint = f"Are the weights in the order {', '.join(names)}?"
    mean, var, seen = arrays[NAMES[2]], arrays[NAMES[3]], count("updates", updates)
    return Layer(params, state_of(mean, var, seen, NAMES[2:], hint), options)


def to_keras(params: BatchNormParams, state: BatchNormState) -> list[np.ndarray]:
    """Return the list of weights for `set_weights` of a Keras BatchNormalization: the inverse of `from_keras`.

    Args:
        params: γ and β, of shape (C,). A scale of None is for a layer with `scale=False`, a bias of None for one with
            `center=False`.
        state: the running statistics, of shape (C,). The count is left out, since Keras has none.

    Returns:
        gamma, beta, moving_mean and moving_variance as NumPy arrays, without those that are None.

    Raises:
        TypeError: `params` is not a `jaxbn.BatchNormParams`, or `state` not a `jaxbn.BatchNormState`.
        ValueError: shapes are not (C,), or the state is None, since Keras always has running statistics.

    Example:
        >>> import jaxbn
        >>> from jaxbn import interop
        >>> print(*interop.to_keras(*jaxbn.init(2)))
        [1. 1.] [0. 0.] [0. 0.] [1. 1.]

    Source: the documentation of `keras.layers.BatchNormalization`.

    """
    (scale, bias), (mean, var, _) = tracked(params, state, "Keras")
    return [cast(np.ndarray, value) for value in (scale, bias, mean, var) if value is not None]


def options_from_keras(momentum: float = 0.99, epsilon: float = 1e-3) -> Options:
    """Return the options of `jaxbn.batch_norm` that stand for the arguments of Keras' BatchNormalization.

    Args:
        momentum: the weight of the old statistic, in [0, 1].
        epsilon: added to the variance under the root; by default 1e-3 in Keras.

    Returns:
        An `Options` dictionary with the same `momentum` and `epsilon`, and `unbiased=False`.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> from jaxbn import interop
        >>> interop.options_from_keras()
        {'momentum': 0.99, 'epsilon': 0.001, 'unbiased': False}

    Source: the documentation of `keras.layers.BatchNormalization`.

    Differs elsewhere: the default epsilon of Keras is 1e-3, that of all other libraries here 1e-5.

    """
    return Options(momentum=proportion("momentum", momentum), epsilon=check.epsilon(epsilon), unbiased=False)
