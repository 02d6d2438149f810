"""The records through which a Flax module passes the moments of its input to `jaxbn.recalibrate`.

Next to its running `mean` and `var`, a norm may find a record: an entry with one of the names below that holds
`Moments`. It then adds the moments of its input to the record and does not update the running statistics. The name
says which statistics it normalises with: those of the batch, as in training, or the running ones, as in evaluation.

The record is an entry of `batch_stats` for three reasons. A context variable would be invisible to the cache of
`jax.jit`, and a trace made while recording could run in training; an entry is part of the arguments' structure. A
collection of its own would have to be named in every `nn.scan` and `nn.vmap` of the user's model; the running
statistics already pass through all of them. And computing the moments back from an update with a known momentum would
be inexact.
"""

from collections.abc import Callable, Hashable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn._dtypes import promote
from jaxbn._moments import Moments
from jaxbn._statistics import moments, union

BY_BATCH, BY_RUNNING = "moments_by_batch", "moments_by_running"


def which(has: Callable[[str], bool]) -> str | None:
    """The name of the module's record, or None."""
    return next(filter(has, (BY_BATCH, BY_RUNNING)), None)


def empty(mean: jax.Array) -> Moments:
    """An empty record; its weight is negative, which marks that no module has written to it."""
    zero = jnp.zeros(jnp.shape(mean), promote(jnp.result_type(mean)))
    return Moments(jnp.full_like(zero.real, -1), zero, zero, zero.real)


def add(
    record: Moments,
    x: jax.Array,
    *,
    axis: int | Sequence[int],
    mask: ArrayLike | None,
    axis_name: Hashable | Sequence[Hashable] | None,
    axis_index_groups: Sequence[Sequence[int]] | None,
    **_: object,
) -> Moments:
    """The record with the moments of `x` added: over the whole batch and, by the options, all shards that share.

    The other options of `batch_norm` do not matter. Ghost batches, for example, only change the normalization.
    """
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(promote())
    own = moments(x, axis=axis, mask=mask, axis_name=axis_name, axis_index_groups=axis_index_groups)
    return union(record, own)
