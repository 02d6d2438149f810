"""The median of a sample of each channel: a value near the middle of nearly any data, found by reading few of them.

The remedian: of the sample, medians of three are taken, of these medians of three again, until one is left. The least
and the greatest of two numbers are exact, so that the result is the same bits wherever the compiler computes it again,
which holds of no mean. The places are spread over the whole array, and those of three neighbours are far apart. So
half of them are outliers only where about half of the data are.

Source: Rousseeuw & Bassett, "The Remedian: A Robust Averaging Method for Large Data Sets", 1990.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn._axes import size

THREES = 4  # 3⁴ = 81 places
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, fill the unit interval as evenly as any


def middle(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A value near the middle of `x` along `axes`."""
    return remedian(sample(x, axes))


def sample(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """81 entries of each channel along a new first axis."""
    indices = np.unravel_index(places(size(x.shape, axes)), [x.shape[axis] for axis in axes])
    return jnp.moveaxis(x, axes, range(len(axes)))[tuple(map(jnp.asarray, indices))]


def places(n: int) -> np.ndarray:
    """Which of n entries are looked at, neighbours far apart."""
    return np.floor(np.arange(1, 3**THREES + 1) * GOLDEN % 1 * n).astype(np.int32)


def remedian(values: jax.Array) -> jax.Array:
    """The median of medians of three, along the first axis; of complex numbers, part by part."""
    if jnp.iscomplexobj(values):
        return jax.lax.complex(remedian(values.real), remedian(values.imag))
    for _ in range(THREES):
        a, b, c = jnp.moveaxis(values.reshape(len(values) // 3, 3, *values.shape[1:]), 1, 0)
        values = jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))
    return values[0]
