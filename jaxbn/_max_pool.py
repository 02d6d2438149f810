"""Normalization, activation and max pooling: pooling first, where that is the same.

z = (x − shift) · multiplier + offset has the entries of a window in the order of x, or in the reverse order where the
multiplier is negative, and an activation that never decreases keeps that order. So the greatest result of a window
comes from its greatest x, or from its least:

    max activation(z) = activation((p − shift) · multiplier + offset)

All that follows the statistics is then of the size of p, forward and backward; only the gradient of x is not.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxbn._axes import expand
from jaxbn._dtypes import described
from jaxbn._normalize import ACTIVATIONS, Form, Inputs, Vectors, normalize, readable
from jaxbn._placement import beside, join_first, split_first
from jaxbn._policy import recomputed

MaxPool = Callable[[jax.Array], jax.Array]

_NEVER_DECREASE = (None, *(ACTIVATIONS[name] for name in ("relu", "leaky_relu", "tanh", "sigmoid", "elu")))


def normalize_and_pool(
    max_pool: MaxPool | None, form: Form, inputs: Inputs, vectors: Vectors, x: jax.Array
) -> jax.Array:
    """max_pool(normalize(form, inputs, vectors)), in the shape and the place of `x`.

    Args:
        max_pool: the greatest entry of each window, of an array of the shape of `x`; None to pool nothing.
        form: that of the normalization.
        inputs: its inputs, whose first axis may be split into ghost batches.
        vectors: its vectors.
        x: the input as it was given.

    Raises:
        ValueError: `max_pool` does not keep the number of dimensions, of examples and of features.

    """
    if max_pool is None:
        return beside(x, join_first(normalize(form, inputs, vectors), x.ndim), range(x.ndim))
    pool = partial(_pool, max_pool, form.axes, x.shape)
    if inputs.residual is not None or form.activation not in _NEVER_DECREASE:
        y = recomputed(lambda *given: pool(normalize(form, *given)))(inputs, vectors)
    else:
        picked = _pick(pool, form.axes, inputs, vectors)
        y = normalize(form, Inputs(picked, mask=None, residual=None), vectors)
    return join_first(y, x.ndim)


@partial(recomputed, static_argnums=(0, 1))  # keeps x, mask and vectors
def _pick(pool: MaxPool, axes: tuple[int, ...], inputs: Inputs, vectors: Vectors) -> jax.Array:
    """The entries of `x` that the greatest results come from."""
    x = inputs.x if inputs.mask is None else readable(axes, inputs, vectors)[0]
    negative = expand(vectors.multiplier < 0, axes)
    picked = pool(jnp.where(negative, -x, x))
    return jnp.where(negative, -picked, picked)


def _pool(max_pool: MaxPool, axes: tuple[int, ...], shape: tuple[int, ...], x: jax.Array) -> jax.Array:
    """`max_pool` of an array of ghost batches, whose first two axes are one for it, or of another."""
    pooled = max_pool(join_first(x, len(shape)))
    extra = x.ndim - len(shape)
    kept = [a for a in range(len(shape)) if a == 0 or a + extra not in axes]
    is_array = isinstance(pooled, jax.Array)
    if not is_array or pooled.ndim != len(shape) or any(pooled.shape[a] != shape[a] for a in kept):
        made = pooled.shape if is_array else described(pooled)
        raise (ValueError if is_array else TypeError)(
            f"max_pool must keep the first axis and the features, axes {kept} of x of shape {shape}; it made {made}. "
            "Pass such as partial(flax.linen.max_pool, window_shape=(2, 2), strides=(2, 2))"
        )
    return split_first(pooled, x.shape[1]) if extra else pooled
