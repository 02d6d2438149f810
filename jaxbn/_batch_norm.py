"""Batch normalization as one pure function: the composition that reads like the paper's algorithm."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxbn import _check as check
from jaxbn._axes import feature_axes, is_known, reduction_axes, size
from jaxbn._dtypes import promote
from jaxbn._max_pool import MaxPool, normalize_and_pool
from jaxbn._moments import Moments, moments
from jaxbn._momentum import Schedule, check_momentum, update
from jaxbn._normalize import Activation, ActivationName, Form, Inputs, Vectors, normalize
from jaxbn._placement import as_before, beside, join_first, split_first
from jaxbn._policy import name_input
from jaxbn._renorm import BatchRenorm, check_renorm, corrections
from jaxbn._root import inverse_root
from jaxbn._sharing import sharing, vary_like
from jaxbn._state import BatchNormParams, BatchNormState

StateT = TypeVar("StateT", bound=BatchNormState | None)


def batch_norm(
    params: BatchNormParams,
    state: StateT,
    x: ArrayLike,
    train: bool,
    *,
    axis: int | Sequence[int] = -1,
    momentum: ArrayLike | Schedule = 0.99,
    epsilon: ArrayLike = 1e-5,
    unbiased: bool = False,
    mask: ArrayLike | None = None,
    axis_name: Hashable | Sequence[Hashable] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    ghost_batch_size: int | None = None,
    renorm: BatchRenorm | None = None,
    residual: ArrayLike | None = None,
    activation: ActivationName | Activation | None = None,
    max_pool: MaxPool | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[jax.Array, StateT]:
    """Normalises `x` in each channel, by the batch's statistics (training) or the running ones (evaluation).

    With the m entries xᵢ of a channel:

        μ = (1/m) Σ xᵢ        σ² = (1/m) Σ |xᵢ − μ|²        x̂ᵢ = (xᵢ − μ) / √(σ² + ε)        yᵢ = γ x̂ᵢ + β

    and, in training, running ← momentum · running + (1 − momentum) · batch, for mean and variance.

    Args:
        params: γ and β, of the shape of the feature axes; made by `jaxbn.init`.
        state: the running statistics; None to use the batch's statistics always and to track nothing.
        x: floating or complex, any shape, the features on `axis`. float32 input with |mean|/std up to 10⁶ is normalised
            to within 2·10⁻⁶ of exact arithmetic.
        train: a Python bool. True: normalise with the batch's statistics and update the state. False: normalise with
            the state, which is returned as it is, the very same object.
        axis: the feature axis, or a tuple of them (in any order); every other axis is reduced.
        momentum: in [0, 1], the weight kept by the old running statistic: one number, or an array of one for each
            channel; or a function of `state.count` that gives it: `jaxbn.cumulative()`, `jaxbn.debiased(0.99)`, any
            Optax schedule.
        epsilon: at least 0, added to the variance under the root, in the square of the unit of `x`. Momentum and
            epsilon may be traced, as in a sweep under `jax.vmap`; their range is then not checked.
        unbiased: the running variance takes the m/(m−1) estimate; the normalization itself never does.
        mask: bool, or non-negative weights, broadcastable to `x`: which entries count, and how often. What does not
            count influences nothing, also where `x` or `residual` is NaN or inf. Only the ratios of weights matter
            (except to `unbiased`), so they may be of any size; infinity counts as the largest number, NaN as 0. A
            channel without weight keeps its running statistics. No gradient flows to the mask.
        axis_name: mapped axis, or a tuple of them, whose shards share their statistics (in `jax.shard_map`, `jax.vmap`,
            `jax.pmap`). Under plain `jax.jit` sharded arrays need no such thing.
        axis_index_groups: groups of indices along `axis_name`; only the shards of a group share.
        ghost_batch_size: in training, statistics per contiguous group of this many rows of the first axis, which it
            must divide; the running statistics take the mean over the groups.
        renorm: bounds of batch renormalization, in training.
        residual: of the shape of `x`, added to γ x̂ + β; a complex one asks for a complex `dtype`.
        activation: applied after that: one of "relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid", "elu", or an
            elementwise function without parameters of its own.
        max_pool: applied last: a function of an array like `x` that picks the greatest entry of each window, such as
            `partial(flax.linen.max_pool, window_shape=(2, 2), strides=(2, 2))`. Where no residual, and no activation
            but "relu", "leaky_relu", "tanh", "sigmoid" or "elu" is in between, `x` is pooled first, which gives the
            same, and most of the work is done at the smaller size. (The derivative is that of another entry where
            entries of different x have the same result, as negative ones behind relu, or all of them where γ is 0; and
            an infinite entry that is not picked makes no NaN there.)
        dtype: type of the result; that of `x` by default. Statistics are computed in float32 or wider whatever it is.

    Returns:
        `(y, state)`: y of the shape of `x`, or the one that `max_pool` gives it; the state has the type that it had, or
        the statistics' where that is wider. Without any row, y is empty and the state is the one given.

    Raises:
        TypeError: `train` is traced or no bool; `x` is of integers; an argument is of the wrong kind.
        ValueError: shapes disagree; an option is out of its range; two options contradict each other; `axis_name` is
            not bound; a channel has a single value to take statistics of.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.init(2)
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> y, state = jaxbn.batch_norm(params, state, x, train=True, momentum=0.9)
        >>> print(y.round(3))
        [[-1. -1.]
         [ 1.  1.]]
        >>> print(state.mean, state.var, state.count)
        [0.2 2. ] [ 1.  10.9] 1
        >>> y, _ = jaxbn.batch_norm(params, state, x, train=False)

    Source: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift", 2015, algorithms 1 and 2. Ghost batches: Hoffer et al. 2017. Renormalization: Ioffe 2017.

    Differs elsewhere: PyTorch's momentum is the weight of the *new* statistic (its 0.1 is 0.9 here) and its running
    variance is unbiased (`unbiased=True` here; the paper's evaluation does so too); Keras' epsilon is 1e-3 by default.
    Flax averages the shards' masked means whatever their weights; here they are weighted. See docs/semantics.md.

    """
    return compute(
        params,
        state,
        x,
        train,
        axis=axis,
        momentum=momentum,
        epsilon=epsilon,
        unbiased=unbiased,
        mask=mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        ghost_batch_size=ghost_batch_size,
        renorm=renorm,
        residual=residual,
        activation=activation,
        max_pool=max_pool,
        dtype=dtype,
        too_few=check.refuse,
    )


def compute(
    params: BatchNormParams,
    state: StateT,
    x: ArrayLike,
    train: bool,
    *,
    axis: int | Sequence[int],
    momentum: ArrayLike | Schedule,
    epsilon: ArrayLike,
    unbiased: bool,
    mask: ArrayLike | None,
    axis_name: Hashable | Sequence[Hashable] | None,
    axis_index_groups: Sequence[Sequence[int]] | None,
    ghost_batch_size: int | None,
    renorm: BatchRenorm | None,
    residual: ArrayLike | None,
    activation: ActivationName | Activation | None,
    max_pool: MaxPool | None,
    dtype: DTypeLike | None,
    too_few: Callable[[str], None],
) -> tuple[jax.Array, StateT]:
    """`batch_norm`; `too_few` is told of a batch with one value per channel, and raises where that is an error."""
    running = cast(BatchNormState | None, state)
    arrays = check.values(params, running)
    array = check.array(x)
    features = feature_axes(axis, array.ndim)
    train, epsilon = check.training(train), check.epsilon(epsilon)
    momentum = check_momentum(momentum, tuple(array.shape[a] for a in features))
    check_renorm(renorm, running, array.dtype)
    check.shapes(arrays, array.shape, features)
    rows = check.ghost_batch_size(ghost_batch_size, array.shape, features, train, axis_name is not None)
    shared = sharing(axis_name, axis_index_groups) if train or running is None or axis_name is None else None

    # In an explicit mesh: the vectors, which may be sharded in any way, as the features of x are.
    params, placed = jax.tree.map(lambda v: beside(array, v, features[: jnp.ndim(v)]), (params, running))
    inputs = Inputs(name_input(array), check.mask(mask, array.shape), check.residual(residual, array))
    axes = reduction_axes(features, array.ndim)
    entries = size(array.shape, axes)
    empty = is_known(entries) and entries == 0
    rows = rows if train and not empty else None
    if rows is not None:  # the groups become one more feature axis, in front
        inputs = jax.tree.map(partial(split_first, rows=rows), inputs)
        params, axes = jax.tree.map(lambda vector: vector[None], params), tuple(a + 1 for a in axes)

    new_state = running
    if train or running is None:
        values = None if empty else check.count(inputs.x.shape, axes, shared.sharers if shared else 1, too_few)
        guess = None if placed is None else placed.mean
        batch = moments(inputs.x, axes, inputs.mask, shared, guess=guess, epsilon=epsilon)
        if running is not None and placed is not None and values is not None:
            values = values if mask is None and is_known(values) and values != 1 else None
            new_state = update(placed, batch, momentum, unbiased=unbiased, grouped=rows is not None, values=values)
            new_state = jax.tree.map(as_before, new_state, running)
    else:
        batch = Moments(jnp.ones(()), placed.mean, jnp.zeros_like(placed.mean), placed.var)

    wide = promote(*(a.dtype for a in (inputs.x, inputs.residual) if a is not None))
    vectors = _coefficients(params, placed, batch, epsilon, renorm if train else None, wide)
    computed = vectors[0].dtype
    form = Form(axes, check.activation(activation, computed), check.result_dtype(dtype, computed, array.dtype))
    whole = Vectors(*vary_like(inputs.x, *vectors))
    if max_pool is None:
        y = beside(array, join_first(normalize(form, inputs, whole), array.ndim), range(array.ndim))
    else:
        y = normalize_and_pool(check.max_pool(max_pool, computed), form, inputs, whole, array.shape)
    return y, cast(StateT, new_state)


def _coefficients(
    params: BatchNormParams,
    state: BatchNormState | None,
    batch: Moments,
    epsilon: float | jax.Array,
    renorm: BatchRenorm | None,
    dtype: DTypeLike,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The vectors of y = (x − shift) · multiplier + offset, all of one shape and of a type that `dtype` fits into."""
    dtype = promote(dtype, batch.shift.dtype, *(v.dtype for v in params if v is not None))
    shift, remainder = batch.shift.astype(dtype), batch.offset.astype(dtype)
    multiplier = inverse_root(batch.var.astype(jnp.finfo(dtype).dtype), epsilon).astype(dtype)
    correction = jnp.zeros_like(multiplier)
    if renorm is not None and state is not None:
        r, correction = corrections(renorm, state, batch, epsilon)
        multiplier, correction = multiplier * r.astype(dtype), correction.astype(dtype)
    if params.scale is not None:
        scale = params.scale.astype(dtype)
        multiplier, correction = multiplier * scale, correction * scale
    offset = correction - remainder * multiplier
    if params.bias is not None:
        offset = offset + params.bias.astype(dtype)
    return shift, multiplier, offset
