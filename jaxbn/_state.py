"""The parameters and the running statistics of batch normalization, and their initial values."""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxbn._dtypes import at_least_16_bits, can_compute, promote


class BatchNormParams(NamedTuple):
    """The learned parameters, γ and β, of one batch normalization.

    Attributes:
        scale: γ, of the shape of the feature axes; None for a norm without scale, as if γ = 1.
        bias: β, of the shape of the feature axes; None for a norm without bias, as if β = 0.

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
    """The running statistics of one batch normalization, which evaluation normalises with.

    Attributes:
        mean: the running mean, of the shape of the feature axes, float32 or wider; complex for complex input.
        var: the running variance, of the same shape, real, float32 or wider.
        count: the number of training updates so far, an int32 scalar, which momentum schedules read.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> state = jaxbn.BatchNormState(mean=jnp.array([3.0]), var=jnp.array([4.0]), count=jnp.array(10))
        >>> y, _ = jaxbn.batch_norm(jaxbn.BatchNormParams(None, None), state, jnp.array([[7.0]]), train=False)
        >>> print(y.round(3))
        [[2.]]

    """

    mean: jax.Array
    var: jax.Array
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def init(
    num_features: int | Sequence[int],
    *,
    use_scale: bool = True,
    use_bias: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> tuple[BatchNormParams, BatchNormState]:
    """Make the parameters and the running statistics of one batch normalization.

        γ = 1        β = 0        running mean = 0        running variance = 1        count = 0

    Args:
        num_features: the size of the feature axis, or a tuple with the sizes of several feature axes.
        use_scale: whether to learn γ; if False, `params.scale` is None.
        use_bias: whether to learn β; if False, `params.bias` is None.
        dtype: type of γ and β. The running statistics are float32, or wider where this type is wider.

    Returns:
        `(params, state)`: a `jaxbn.BatchNormParams` and a `jaxbn.BatchNormState`, both pytrees.

    Raises:
        TypeError: `num_features` is not made of integers, or `dtype` is neither floating nor complex.
        ValueError: a size is not positive.

    Example:
        >>> import jaxbn
        >>> params, state = jaxbn.init(3)
        >>> print(params.scale, params.bias, state.mean, state.var, state.count)
        [1. 1. 1.] [0. 0. 0.] [0. 0. 0.] [1. 1. 1.] 0

    Source: γ and β: Ioffe & Szegedy 2015. Initial statistics: the convention of PyTorch, Keras and Flax.

    Differs elsewhere: Haiku starts both of its averages at 0, Equinox its mean at 0 and its variance at 1; to evaluate,
    both libraries divide them by 1 − momentumᵗ.

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
