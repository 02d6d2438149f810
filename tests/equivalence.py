"""Comparison of a drop-in replacement with the original: their variables and results, leaf by leaf."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from closeness import relative_tolerance


def batch(dtype: Any = "float32", shape: tuple[int, ...] = (8, 5, 6), seed: int = 0) -> jax.Array:
    """A random batch whose mean is small enough for Flax's variance."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.5, 2, shape)
    return jnp.asarray(x + 1j * rng.normal(size=shape) if jnp.issubdtype(dtype, jnp.complexfloating) else x, dtype)


def assert_same(ours: Any, flaxs: Any, *, scale: float = 1.0, least: float = 0.0) -> None:
    """Assert equal structure, names, shapes and types, and values as close as their type allows, or within `least`."""
    assert jax.tree.structure(ours) == jax.tree.structure(flaxs)
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(flaxs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), jax.tree_util.keystr(path)
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            np.testing.assert_array_equal(a, b)
            continue
        tolerance = max(10 * scale * relative_tolerance(a), least)
        largest = np.abs(oracle.wide(b)).max()
        np.testing.assert_allclose(
            oracle.wide(a), oracle.wide(b), rtol=0, atol=tolerance * max(1, largest), err_msg=jax.tree_util.keystr(path)
        )
