"""How close two computations must be: the one place of every tolerance, by one model of their errors.

The library promises |error| ≤ 2·10⁻⁶ · max(1, |y|) for float32. What is of another type has that type's share of it.
Nothing here was measured: another processor, which rounds elsewhere, is held to the same bounds.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle

# The error that a result of each type may have, relative to the entry. A type of half precision is only rounded to: its
# absolute error, where an entry is near zero, is that of what is computed in, float32.
RELATIVE = {"bfloat16": 2**-8, "float16": 2**-10, "float32": 2e-6, "float64": 1e-12}


def relative_tolerance(dtype: Any) -> float:
    """The relative error of this type; of a complex type that of its parts."""
    return RELATIVE[jnp.finfo(dtype).dtype.name]


def assert_close(
    actual: Any, expected: Any, *, condition: float = 1.0, size: float = 1.0, dtype: Any = None, message: str = ""
) -> None:
    """Compares two trees, leaf by leaf: |actual − expected| ≤ condition · unit · max(size, |expected|), roughly.

    Args:
        actual: numbers, arrays or a tree of them; integers must be equal.
        expected: the same structure and shapes; a Python number stands for every entry.
        condition: how many times the promised error may reach the result: what is behind it in the computation
            magnifies an error by so much (the number of layers or steps, mean over deviation in E[x²] − E[x]²).
        size: of the terms that an entry is the sum of, which may cancel; 0 where all have one sign, as in a variance,
            so that small entries are as exact as large ones.
        dtype: the type that was computed in, where `actual` has a wider one; a Python number is of JAX's default type.
        message: what is compared, for the failure.

    """
    leaves, others = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(leaves) == len(others), message
    for leaf, other in zip(leaves, others, strict=True):
        computed_in = dtype or getattr(leaf, "dtype", jnp.result_type(float))
        if not jnp.issubdtype(computed_in, jnp.inexact):
            np.testing.assert_array_equal(leaf, other, err_msg=message)
            continue
        relative = condition * relative_tolerance(computed_in)
        absolute = min(relative, condition * RELATIVE["float32"]) * size
        everywhere = isinstance(other, int | float)  # one number that every entry has
        np.testing.assert_allclose(
            oracle.wide(leaf), oracle.wide(other), relative, absolute, strict=not everywhere, err_msg=message
        )
