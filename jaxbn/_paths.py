"""Paths of leaves in a tree of variables."""

from collections.abc import Iterable
from typing import Any


def names(path: Iterable[Any]) -> tuple[Any, ...]:
    """The keys, attributes or indices of a path of `jax.tree`, for every kind of container."""
    return tuple(
        next((getattr(entry, kind) for kind in ("key", "name", "idx") if hasattr(entry, kind)), entry) for entry in path
    )
