"""The median of a sample of each channel: a value near the middle of nearly any data, found by reading few of them.

The remedian: of the sample, medians of three are taken, of these medians of three again, until one is left. The least
and the greatest of two numbers are exact, so that the result is the same bits wherever the compiler computes it again,
which holds of no mean. The places are spread over the whole array, three neighbours of the sample far apart, so that
half of them lie on outliers only where half the data do.

Source: Rousseeuw & Bassett, "The Remedian: A Robust Averaging Method for Large Data Sets", 1990.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn._axes import size
from jaxbn._dtypes import promote
from jaxbn._weights import power_of_two

THREES = 4  # 3⁴ = 81 places
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, fill the unit interval as evenly as any


def middle(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """A value near the middle of `x` along `axes`, and a power of two near half the distance of others from it."""
    sample = _sample(x, axes)
    if jnp.iscomplexobj(x):
        median = jax.lax.complex(_remedian(sample.real), _remedian(sample.imag))
    else:
        median = _remedian(sample)
    half = sample * 0.5 - median[None] * 0.5
    return median, power_of_two(jnp.maximum(jnp.abs(half.real), jnp.abs(half.imag)), (0,))


def _sample(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """81 entries of each channel along a new first axis, in the type of the statistics."""
    indices = np.unravel_index(places(size(x.shape, axes)), [x.shape[axis] for axis in axes])
    x = jnp.moveaxis(x, axes, range(len(axes)))
    return x[tuple(map(jnp.asarray, indices))].astype(promote(x.dtype))


def places(n: int) -> np.ndarray:
    """Which of n entries are looked at, neighbours far apart."""
    return np.floor(np.arange(1, 3**THREES + 1) * GOLDEN % 1 * n).astype(np.int32)


def _remedian(sample: jax.Array) -> jax.Array:
    for _ in range(THREES):
        a, b, c = jnp.moveaxis(sample.reshape(-1, 3, *sample.shape[1:]), 1, 0)
        sample = jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))
    return sample[0]
