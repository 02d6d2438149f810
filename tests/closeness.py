"""The tolerances of all comparisons, from one model of the errors.

The library promises |error| ≤ 2·10⁻⁶ · max(1, |y|) for float32, and a bound in proportion for other types.
No tolerance was tuned to measurements, so another processor, which rounds differently, must meet the same bounds.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle

# The relative error that a result of each type may have. Half precision is only a storage type: near zero, the absolute
# error of an entry is that of the computing dtype, float32.
RELATIVE = {"bfloat16": 2**-8, "float16": 2**-10, "float32": 2e-6, "float64": 1e-12}


def relative_tolerance(dtype: Any) -> float:
    """The relative error of this type; for a complex type, that of its parts."""
    return RELATIVE[jnp.finfo(dtype).dtype.name]


def assert_close(
    actual: Any, expected: Any, *, condition: float = 1.0, size: float = 1.0, dtype: Any = None, message: str = ""
) -> None:
    """Compare two trees, leaf by leaf: |actual − expected| ≤ condition · unit · max(size, |expected|), roughly.

    Args:
        actual: numbers, arrays or a tree of them; integers must be equal.
        expected: the same structure and shapes; a Python number stands for every entry.
        condition: the factor by which the rest of the computation may magnify the promised error: the number of
            layers or steps, or mean over deviation in E[x²] − E[x]².
        size: the size of the terms whose sum an entry is, since they may cancel; 0 if all have one sign, as in a
            variance, so that small entries must be as exact as large ones.
        dtype: the computing dtype, if `actual` has a wider one; a Python number has JAX's default type.
        message: the name of the comparison, for the failure.

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
