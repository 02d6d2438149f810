"""The values of batch normalization: what is learned, what is tracked, and how both begin."""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxbn._dtypes import at_least_16_bits, can_compute, promote


class BatchNormParams(NamedTuple):
    """What is learned: γ (`scale`) and β (`bias`), each of the shape of the feature axes, or None where disabled.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params = jaxbn.BatchNormParams(scale=jnp.array([2.0]), bias=None)
        >>> y, _ = jaxbn.batch_norm(params, None, jnp.array([[1.0], [3.0]]), train=True)
        >>> print(y.round(3))
        [[-2.]
         [ 2.]]

    """

    scale: jax.Array | None
    bias: jax.Array | None


class BatchNormState(NamedTuple):
    """What is tracked: the running statistics that evaluation normalises with.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> state = jaxbn.BatchNormState(mean=jnp.array([3.0]), var=jnp.array([4.0]), count=jnp.array(10))
        >>> y, _ = jaxbn.batch_norm(jaxbn.BatchNormParams(None, None), state, jnp.array([[7.0]]), train=False)
        >>> print(y.round(3))
        [[2.]]

    """

    mean: jax.Array  # shape of the feature axes, float32 or wider (complex for complex input)
    var: jax.Array  # shape of the feature axes, real, float32 or wider
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # int32 scalar: training updates folded in


def init(
    num_features: int | Sequence[int],
    *,
    use_scale: bool = True,
    use_bias: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> tuple[BatchNormParams, BatchNormState]:
    """Makes the parameters and the state of one batch normalization.

    γ = 1, β = 0, running mean 0, running variance 1, count 0.

    Args:
        num_features: the size of the feature axis, or one size for each of several feature axes.
        use_scale: whether to learn γ; `params.scale` is None otherwise.
        use_bias: whether to learn β; `params.bias` is None otherwise.
        dtype: type of γ and β. The running statistics are float32, or wider where this type is wider.

    Returns:
        `(params, state)`, both pytrees.

    Raises:
        TypeError: `num_features` holds something else than integers, or `dtype` is neither floating nor complex.
        ValueError: a size is not positive.

    Example:
        >>> import jaxbn
        >>> params, state = jaxbn.init(3)
        >>> print(params.scale, params.bias, state.mean, state.var, state.count)
        [1. 1. 1.] [0. 0. 0.] [0. 0. 0.] [1. 1. 1.] 0

    Differs elsewhere: Equinox (hidden variance) and Haiku (both averages) begin at other values and correct them later;
    PyTorch and Keras begin as here.

    """
    sizes = num_features if isinstance(num_features, Sequence) else (num_features,)
    try:
        shape = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise TypeError(
            f"num_features must be an integer or a tuple of them, the sizes of the feature axes; got {num_features!r}"
        ) from None
    if any(size < 1 for size in shape):
        raise ValueError(f"num_features must be positive; got {num_features!r}")
    if not can_compute(dtype):
        raise TypeError(
            f"dtype must be floating or complex{at_least_16_bits(dtype)}, such as jnp.float32; "
            f"got {jnp.dtype(dtype).name}"
        )
    mean = jnp.zeros(shape, promote(dtype))
    params = BatchNormParams(
        scale=jnp.ones(shape, dtype) if use_scale else None,
        bias=jnp.zeros(shape, dtype) if use_bias else None,
    )
    return params, BatchNormState(mean=mean, var=jnp.ones_like(mean.real), count=jnp.zeros((), jnp.int32))
