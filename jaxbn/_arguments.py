"""The arguments of `batch_norm`, checked before anything is computed and prepared for the computation."""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxbn import _check as check
from jaxbn._axes import feature_axes, is_known, reduction_axes, size
from jaxbn._carrier import carrier_of
from jaxbn._dtypes import promote
from jaxbn._max_pool import MaxPool
from jaxbn._momentum import check_momentum
from jaxbn._normalize import Activation, ActivationName, Form, Inputs
from jaxbn._placement import beside, split_first
from jaxbn._policy import name_input
from jaxbn._renorm import BatchRenorm, check_renorm
from jaxbn._schedules import Schedule
from jaxbn._sharing import Sharing, sharing
from jaxbn._state import BatchNormParams, BatchNormState


class Arguments(NamedTuple):
    """The checked arguments of `batch_norm`.

    In an explicit mesh, the vectors are sharded like the features of x. With ghost batches, the inputs and the
    parameters have one more feature axis in front.
    """

    params: BatchNormParams
    state: BatchNormState | None
    x: jax.Array  # as given
    inputs: Inputs
    form: Form
    computed: jnp.dtype  # the type to normalise in
    max_pool: MaxPool | None
    momentum: float | jax.Array | Schedule
    epsilon: float | jax.Array
    renorm: BatchRenorm | None  # only in training
    by_batch: bool  # whether to normalise with the batch's statistics
    shared: Sharing | None  # the shards that share them
    empty: bool  # whether there are no values to take them from
    values: int | None  # the number of values per channel, if it is known and above 1
    grouped: bool  # whether there are ghost batches


def arguments(
    params: BatchNormParams,
    state: BatchNormState | None,
    x: ArrayLike,
    train: bool,
    *,
    axis: int | Sequence[int],
    momentum: ArrayLike | Schedule,
    epsilon: ArrayLike,
    mask: ArrayLike | None,
    axis_name: Hashable | Sequence[Hashable] | None,
    axis_index_groups: Sequence[Sequence[int]] | None,
    ghost_batch_size: int | None,
    renorm: BatchRenorm | None,
    residual: ArrayLike | None,
    activation: ActivationName | Activation | None,
    max_pool: MaxPool | None,
    dtype: DTypeLike | None,
) -> Arguments:
    """The arguments as `batch_norm` computes with them; raises if one is wrong, or if two contradict each other."""
    vectors, array, train = check.values(params, state), check.array(x), check.training(train)
    features = feature_axes(axis, array.ndim)
    axes = reduction_axes(features, array.ndim)
    epsilon = check.epsilon(epsilon)
    momentum = check_momentum(momentum, tuple(array.shape[a] for a in features))
    check_renorm(renorm, state, array.dtype)
    check.shapes(vectors, array.shape, features)
    rows = check.ghost_batch_size(ghost_batch_size, array.shape, features, train, axis_name is not None)
    mask, residual = check.mask(mask, array.shape), check.residual(residual, array)

    by_batch = train or state is None
    shared = sharing(axis_name, axis_index_groups) if by_batch or axis_name is None else None
    params, placed = jax.tree.map(lambda v: beside(array, v, features[: jnp.ndim(v)]), (params, state))
    number = size(array.shape, axes)
    empty = is_known(number) and number == 0
    statistics = [] if by_batch or placed is None else [placed.mean]
    computed = promote(*(a.dtype for a in (array, residual, *params, *statistics) if a is not None))
    carrier = carrier_of(array, computed) if by_batch else array  # otherwise x is used once
    inputs = Inputs(name_input(array), mask, residual, carrier)
    rows = rows if train and not empty else None
    if rows is not None:
        inputs = jax.tree.map(partial(split_first, rows=rows), inputs)
        params, axes = jax.tree.map(lambda vector: vector[None], params), tuple(a + 1 for a in axes)

    values = check.count(inputs.x.shape, axes, shared.sharers if shared else 1) if by_batch and not empty else 0
    return Arguments(
        params=params,
        state=placed,
        x=array,
        inputs=inputs,
        form=Form(axes, check.activation(activation, computed), check.result_dtype(dtype, computed, array.dtype)),
        computed=computed,
        max_pool=check.max_pool(max_pool, computed),
        momentum=momentum,
        epsilon=epsilon,
        renorm=renorm if train else None,
        by_batch=by_batch,
        shared=shared,
        empty=empty,
        values=values if mask is None and is_known(values) and values > 1 else None,
        grouped=rows is not None,
    )
