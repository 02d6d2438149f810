"""The batches that `jaxbn.recalibrate` reads, and their weights."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import jax
import jax.numpy as jnp

from jaxbn._dtypes import described

Weighted = tuple[Any, float]  # a batch and its weight


def check_batches(batches: Iterable[Any]) -> None:
    """Raise unless `batches` is an iterable of batches: one batch is iterable as well, but does not hold batches."""
    if hasattr(batches, "shape") or isinstance(batches, Mapping | str):
        raise TypeError(f"batches must be an iterable of batches; got {described(batches)}. Pass one batch as [batch]")
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be an iterable of batches; got {described(batches)}. Pass a list of them")


def weighted(batches: Iterable[Any], weights: Sequence[float] | None) -> Iterator[Weighted]:
    """Each batch with its weight, relative to the largest weight."""
    if weights is None:
        yield from ((batch, 1.0) for batch in batches)
        return
    numbers = [float(w) for w in weights]
    if not (all(w >= 0 and math.isfinite(w) for w in numbers) and any(numbers)):
        raise ValueError(f"weights must be finite numbers of at least 0, and not all 0; got {weights!r}")
    missing = object()
    for number, (batch, weight) in enumerate(zip_longest(batches, numbers, fillvalue=missing)):
        if batch is missing or not isinstance(weight, float):
            more = f"{number} batches and {len(numbers)} weights" if batch is missing else f"more than {number} batches"
            raise ValueError(f"weights must hold one number for each batch; got {more}")
        yield batch, weight / max(numbers)


def joined(batches: Iterable[Weighted]) -> Iterator[Weighted]:
    """The batches, where a batch with a single row is joined with its neighbour if possible."""
    held: Weighted | None = None
    for current in batches:
        if held is not None and _can_join(held, current):
            held = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), held[0], current[0]), held[1]
            continue
        if held is not None:
            yield held
        held = current
    if held is not None:
        yield held


def _can_join(held: Weighted, current: Weighted) -> bool:
    """True if one batch has a single row and the other several, with equal weights and the rows on the first axis."""
    (a, weight), (b, other_weight) = held, current
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    return (
        weight == other_weight
        and jax.tree.structure(a) == jax.tree.structure(b)
        and all(jnp.ndim(leaf) for leaf in (*leaves, *others))
        and all((x.shape[1:], x.dtype) == (y.shape[1:], y.dtype) for x, y in zip(leaves, others, strict=True))
        and min(_rows(leaves), _rows(others)) == 1 < max(_rows(leaves), _rows(others))
    )


def _rows(leaves: Sequence[Any]) -> int:
    """The common size of the first axis; 0 if there is none, or if an explicit mesh shards it."""
    sizes = {leaf.shape[0] if jax.typeof(leaf).sharding.spec[0] is None else 0 for leaf in leaves}
    return sizes.pop() if len(sizes) == 1 else 0
