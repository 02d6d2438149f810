"""How a Flax module tells `jaxbn.recalibrate` the moments of what it normalises.

Beside its running `mean` and `var`, a norm may find a record: an entry with a name from here that holds `Moments`. It
then adds the moments of its input to the record and leaves the running statistics alone. Which name it is says what it
normalises with meanwhile: the batch's statistics, as in training, or the running ones, as in evaluation.

Why an entry of the very collection, and nothing else: a context variable would escape `jax.jit`, whose cache knows
nothing of it, so that a trace made while recording could be run in training; an entry is part of the arguments'
structure. And a collection of its own would have to be named in every `nn.scan` and `nn.vmap` of the user's model,
while the running statistics already pass through all of them. Momentum could not tell: inverting the update is inexact.
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
    """The name of the record that the module has, if any."""
    return next(filter(has, (BY_BATCH, BY_RUNNING)), None)


def empty(mean: jax.Array) -> Moments:
    """A record that no module has written to: its weight is below 0."""
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
    """The record with the moments of `x` added: of the whole batch, and of all shards that share, by these options.

    Other options of `batch_norm` do not matter: ghost batches, for one, are only normalised apart.
    """
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(promote())
    own = moments(x, axis=axis, mask=mask, axis_name=axis_name, axis_index_groups=axis_index_groups)
    return union(record, own)
