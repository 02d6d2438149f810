"""The per-channel coefficients of a value under changes of its shape.

Coefficients have as many dimensions as the value, and size one along axes on which they do not vary. So they stay small
for every batch size, even a symbolic one.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxbn._axes import is_known


class Blocked(Exception):  # noqa: N818  (not an error: the norm is kept)
    """The reason why a norm cannot pass an operation."""


def varying(coefficients: np.ndarray) -> set[int]:
    """The axes along which coefficients vary."""
    return {axis for axis, size in enumerate(coefficients.shape) if size != 1}


def require_uniform(coefficients: np.ndarray, axes: Sequence[int], operation: str) -> None:
    """Raise Blocked if the coefficients vary along these axes."""
    if varying(coefficients) & set(axes):
        raise Blocked(f"{operation} mixes channels")


def regroup(coefficients: np.ndarray, old: Sequence[Any], new: Sequence[Any]) -> np.ndarray:
    """The coefficients of a reshaped value.

    Example:
        >>> regroup(np.ones((1, 1, 3)), ("n", 2, 3), ("n", 6)).shape
        (1, 6)

    """
    if not varying(coefficients):
        return coefficients.reshape((1,) * len(new))
    full, result = [], []
    for olds, news in _groups(old, new):
        sizes = coefficients.shape[olds]
        whole = old[olds]
        if all(size == 1 for size in sizes):
            full.extend(sizes)
            result.extend(1 for _ in new[news])
        elif tuple(whole) == tuple(new[news]):
            full.extend(sizes)
            result.extend(sizes)
        elif all(is_known(size) for size in (*whole, *new[news])):
            full.extend(whole)
            result.extend(new[news])
        else:
            raise Blocked("a reshape joins channels and a symbolic size")
    return np.broadcast_to(coefficients, full).reshape(result)


def _groups(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[slice, slice]]:
    """The smallest runs of axes, before and after a reshape, that hold the same entries."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first, second = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while not _equal(old[first:i], new[second:j]):
            grows_old = i < len(old) and (j == len(new) or _is_less(old[first:i], new[second:j]))
            if grows_old:
                i += 1
            elif j < len(new):
                j += 1
            else:
                raise Blocked("a reshape in between")
        groups.append((slice(first, i), slice(second, j)))
    return groups


def _equal(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return math.prod(left) == math.prod(right)


def _is_less(left: Sequence[Any], right: Sequence[Any]) -> bool:
    try:
        return bool(math.prod(left) < math.prod(right))
    except Exception as error:  # symbolic sizes that cannot be compared; the type of the error is private to JAX
        raise Blocked("a reshape of symbolic sizes in between") from error
