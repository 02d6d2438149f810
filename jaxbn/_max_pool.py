"""Normalization, activation and max pooling, with the pooling first wherever that gives the same result.

z = (x − shift) · multiplier + offset keeps the order of the entries of a window, or reverses it where the multiplier is
negative, and a non-decreasing activation keeps the order. So the greatest result of a window comes from its greatest or
its smallest x, the entry p:

    max activation(z) = activation((p − shift) · multiplier + offset)

After the statistics, all arrays then have the size of p, forward and backward, except the gradient of x.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxbn._axes import expand
from jaxbn._carrier import carried
from jaxbn._dtypes import described
from jaxbn._normalize import ACTIVATIONS, Form, Inputs, Vectors, normalize, readable
from jaxbn._placement import beside, join_first, split_first
from jaxbn._policy import recomputed

MaxPool = Callable[[jax.Array], jax.Array]

_NEVER_DECREASE = (None, *(ACTIVATIONS[name] for name in ("relu", "leaky_relu", "tanh", "sigmoid", "elu")))


def normalize_and_pool(
    max_pool: MaxPool | None, form: Form, inputs: Inputs, vectors: Vectors, given: jax.Array
) -> jax.Array:
    """max_pool(normalize(form, inputs, vectors)), with ghost batches joined, sharded like the given `x`.

    Args:
        max_pool: a function from an array of the shape of `x` to the greatest entry of each window; None for no
            pooling.
        form: the form of the normalization.
        inputs: the inputs of the normalization, whose first axis may be split into ghost batches.
        vectors: the vectors of the normalization.
        given: `x` as given by the user.

    Raises:
        TypeError: `max_pool` does not return an array.
        ValueError: `max_pool` changes the number of dimensions, of examples or of features.

    """
    if max_pool is None:
        return beside(given, join_first(normalize(form, inputs, vectors), given.ndim), range(given.ndim))
    pool = partial(_pool, max_pool, form.axes, given.shape)
    if inputs.residual is not None or form.activation not in _NEVER_DECREASE:
        y = normalize(form._replace(max_pool=pool), inputs, vectors)
    else:
        x = carried(inputs.x, inputs.carrier)
        picked = _pick(pool, form.axes, inputs._replace(x=x, carrier=x), vectors)
        inputs = Inputs(picked, mask=None, residual=None, carrier=picked)
        y = normalize(form._replace(picked=True), inputs, vectors)
    return join_first(y, given.ndim)


@partial(recomputed, static_argnums=(0, 1))  # keeps x, mask and vectors
def _pick(pool: MaxPool, axes: tuple[int, ...], inputs: Inputs, vectors: Vectors) -> jax.Array:
    """The entries of `x` whose results are the greatest of their windows."""
    x = inputs.x if inputs.mask is None else readable(axes, inputs, vectors)[0]
    negative = expand(vectors.multiplier < 0, axes)
    picked = pool(jnp.where(negative, -x, x))
    return jnp.where(negative, -picked, picked)


def _pool(max_pool: MaxPool, axes: tuple[int, ...], shape: tuple[int, ...], x: jax.Array) -> jax.Array:
    """`max_pool` of an array, for which the first two axes of ghost batches are joined."""
    pooled = max_pool(join_first(x, len(shape)))
    extra = x.ndim - len(shape)
    kept = [a for a in range(len(shape)) if a == 0 or a + extra not in axes]
    is_array = isinstance(pooled, jax.Array)
    if not is_array or pooled.ndim != len(shape) or any(pooled.shape[a] != shape[a] for a in kept):
        made = pooled.shape if is_array else described(pooled)
        raise (ValueError if is_array else TypeError)(
            f"max_pool must keep the first axis and the features, axes {kept} of x of shape {shape}; it made {made}. "
            "Pass, for example, partial(flax.linen.max_pool, window_shape=(2, 2), strides=(2, 2))"
        )
    return split_first(pooled, x.shape[1]) if extra else pooled
