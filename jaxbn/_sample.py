"""The median of a sample of each channel: a value near the middle of nearly any data, from few entries.

This is the remedian: medians of three entries, then medians of three of those medians, until one value is left. Minimum
and maximum are exact, so the result is bit for bit the same wherever the compiler computes it again; a mean is not. The
sampled places are spread over the whole array, and three neighbours in the sample are far apart in it. So about half of
the data must be outliers before half of the sample is.

Source: Rousseeuw & Bassett, "The Remedian: A Robust Averaging Method for Large Data Sets", 1990.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn._axes import size

THREES = 4  # 3⁴ = 81 places
GOLDEN = (math.sqrt(5) - 1) / 2  # the multiples of this number, modulo 1, fill the unit interval most evenly


def middle(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A value near the middle of `x` along `axes`."""
    return remedian(sample(x, axes))


def sample(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """81 entries per channel, along a new first axis."""
    indices = np.unravel_index(places(size(x.shape, axes)), [x.shape[axis] for axis in axes])
    return jnp.moveaxis(x, axes, range(len(axes)))[tuple(map(jnp.asarray, indices))]


def places(n: int) -> np.ndarray:
    """The indices of the sampled entries out of n; neighbours in the sample are far apart."""
    return np.floor(np.arange(1, 3**THREES + 1) * GOLDEN % 1 * n).astype(np.int32)


def remedian(values: jax.Array) -> jax.Array:
    """The repeated median of three along the first axis; for complex numbers, of the real and the imaginary parts."""
    if jnp.iscomplexobj(values):
        return jax.lax.complex(remedian(values.real), remedian(values.imag))
    for _ in range(THREES):
        a, b, c = jnp.moveaxis(values.reshape(len(values) // 3, 3, *values.shape[1:]), 1, 0)
        values = jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))
    return values[0]
