"""Batch normalization as one pure function: the composition that reads like the paper's algorithm."""

from collections.abc import Hashable, Sequence
from typing import TypeVar, cast

import jax
from jax.typing import ArrayLike, DTypeLike

from jaxbn._arguments import arguments
from jaxbn._coefficients import coefficients
from jaxbn._max_pool import MaxPool, normalize_and_pool
from jaxbn._moments import batch_moments, of_running
from jaxbn._momentum import update
from jaxbn._normalize import Activation, ActivationName, Vectors
from jaxbn._placement import as_before
from jaxbn._renorm import BatchRenorm
from jaxbn._schedules import Schedule
from jaxbn._sharing import vary_like
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
    """Normalise each channel of `x` with the batch's statistics (training) or the running statistics (evaluation).

    With the m entries xᵢ of a channel:

        μ = (1/m) Σ xᵢ        σ² = (1/m) Σ |xᵢ − μ|²        x̂ᵢ = (xᵢ − μ) / √(σ² + ε)        yᵢ = γ x̂ᵢ + β

    In training, the running mean and variance are updated:

        running ← momentum · running + (1 − momentum) · batch

    Args:
        params: γ and β, of the shape of the feature axes; made by `jaxbn.init`.
        state: the running statistics; None to normalise with the batch's statistics always and to track nothing.
        x: floating or complex, of any shape, with the features on `axis`. float32 input with `|mean|/std` up to 10⁶ is
            normalised to within 2·10⁻⁶ of exact arithmetic.
        train: a Python bool. True: normalise with the batch's statistics and update the state. False: normalise with
            the state, and return the same state object.
        axis: the feature axis, or a tuple of feature axes in any order; every other axis is reduced.
        momentum: in [0, 1], the weight kept by the old running statistic: one number, or an array with one number per
            channel, or a function of `state.count`: `jaxbn.cumulative()`, `jaxbn.debiased(0.99)`, any Optax schedule.
        epsilon: at least 0, added to the variance under the root, in the square of the unit of `x`. Momentum and
            epsilon may be traced, as in a sweep under `jax.vmap`; their range is then not checked.
        unbiased: if True, the running variance takes the m/(m−1) estimate; the normalization itself never does.
        mask: bools, or non-negative weights, broadcastable to `x`: which entries count, and how often. Masked-out
            entries influence nothing, even where `x` or `residual` is NaN or inf. Only the ratios of the weights matter
            (except with `unbiased`), so they may be of any size; infinity counts as the largest number, NaN as 0. A
            channel without weight keeps its running statistics. No gradient flows to the mask.
        axis_name: a mapped axis, or a tuple of them, whose shards share their statistics (in `jax.shard_map`,
            `jax.vmap` or `jax.pmap`). Sharded arrays under plain `jax.jit` do not need it.
        axis_index_groups: groups of indices along `axis_name`; only the shards of one group share.
        ghost_batch_size: in training, the number of rows per ghost batch: each contiguous group of this many rows of
            the first axis has its own statistics. It must divide the number of rows. The running statistics take the
            mean over the groups.
        renorm: the bounds of batch renormalization, in training.
        residual: an array of the shape of `x`, added to γ x̂ + β; a complex one needs a complex `dtype`.
        activation: applied after the residual: "relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid", "elu", or an
            elementwise function without parameters of its own.
        max_pool: applied last: a function that takes an array like `x` and returns the greatest entry of each window,
            such as `partial(flax.linen.max_pool, window_shape=(2, 2), strides=(2, 2))`. Without a residual, and with no
            activation or "relu", "leaky_relu", "tanh", "sigmoid" or "elu", pooling `x` first gives the same result, so
            `x` is pooled first and most of the work is done at the smaller size. The gradient then goes to another
            entry of the window where several have the same result (negative ones behind relu; all where γ is 0), and an
            infinite entry that is not picked makes no NaN there.
        dtype: type of the result; by default that of `x`. The statistics are computed in float32 or wider in any case.

    Returns:
        `(y, state)`. `y` has the shape of `x`, or the shape that `max_pool` makes of it. The arrays of the state keep
        their types, or take the type of the batch's statistics where that is wider. For an `x` without rows, `y` is
        empty and the state is the one given.

    Raises:
        TypeError: `train` is traced or not a bool; `x` holds integers; an argument is of the wrong kind.
        ValueError: shapes disagree; an option is out of range; two options contradict each other; `axis_name` is not
            bound; a channel has only one value.

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

    Differs elsewhere: PyTorch's momentum is the weight of the *new* statistic (its 0.1 is 0.9 here), and its running
    variance is unbiased, as in the paper's evaluation (`unbiased=True` here). The default epsilon of Keras is 1e-3.
    Flax gives every shard's masked mean the same weight; here each shard counts by the weight of its entries. See
    docs/semantics.md.

    """
    given = arguments(
        params,
        state,
        x,
        train,
        axis=axis,
        momentum=momentum,
        epsilon=epsilon,
        mask=mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        ghost_batch_size=ghost_batch_size,
        renorm=renorm,
        residual=residual,
        activation=activation,
        max_pool=max_pool,
        dtype=dtype,
    )
    inputs, form, running, epsilon = given.inputs, given.form, given.state, given.epsilon
    new_state = state

    # μ and σ²: those of the batch, which also update the running ones; or the running ones themselves.
    if running is None or given.by_batch:
        guess = None if running is None else running.mean
        used = batch_moments(
            inputs.x,
            form.axes,
            inputs.mask,
            given.shared,
            guess=guess,
            epsilon=epsilon,
            carrier=inputs.carrier,
        )
        if running is not None and not given.empty:
            updated = update(
                running, used, given.momentum, unbiased=unbiased, grouped=given.grouped, values=given.values
            )
            new_state = cast(StateT, jax.tree.map(as_before, updated, state))
    else:
        used = of_running(running)

    # y = γ (x − μ) / √(σ² + ε) + β
    vectors = coefficients(given.params, running, used, epsilon, given.renorm, given.computed)
    y = normalize_and_pool(given.max_pool, form, inputs, Vectors(*vary_like(inputs.x, *vectors)), given.x)
    return y, new_state
