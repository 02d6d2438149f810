"""Flax Linen's BatchNorm over `jaxbn.batch_norm`: the same arguments, the same variables, no numerics of its own."""

import dataclasses
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from flax.typing import Dtype, Initializer
from jax.typing import ArrayLike

from jaxbn._axes import feature_axes
from jaxbn._flax import apply, ignore, initial_statistics, options_of, running, updating, warn
from jaxbn._max_pool import MaxPool
from jaxbn._normalize import Activation, ActivationName
from jaxbn._recording import BY_RUNNING, add, which
from jaxbn._renorm import BatchRenorm
from jaxbn._schedules import Schedule
from jaxbn._state import BatchNormParams

__all__ = ["BatchNorm"]

_CHOICE = (
    "jax.lax.cond(use_running_average, lambda: model.apply(..., use_running_average=True, mutable=['batch_stats']), "
    "lambda: model.apply(..., use_running_average=False, mutable=['batch_stats']))"
)


class BatchNorm(nn.Module):
    """Batch normalization, a drop-in for `flax.linen.BatchNorm`.

    Makes the variables `params/{scale,bias}` and `batch_stats/{mean,var}`, with the names, shapes and types of Flax's.
    While the module is initialising, the running statistics are not updated.

    Attributes:
        use_running_average: True to normalise with the running statistics; may be given at the call instead.
        axis: the feature axis, or a tuple of them.
        momentum: weight kept by the old running statistic: a number, an array of one for each channel, or a schedule.
        epsilon: added to the variance under the root.
        dtype: type of the result; by default what `x` and the parameters promote to, as in Flax.
        param_dtype: type that scale and bias are made with.
        use_bias: whether to learn β.
        use_scale: whether to learn γ.
        bias_init: initialiser of β.
        scale_init: initialiser of γ.
        axis_name: mapped axis, or a tuple of them, whose shards share their statistics; unused while initialising.
        axis_index_groups: groups of indices along that axis; only the shards of a group share.
        use_fast_variance: accepted, and without effect: the variance is always computed accurately, in one pass.
        force_float32_reductions: False makes the running statistics in `param_dtype`, which they keep; they are
            computed in float32 or wider in any case.
        unbiased: this and the following are options of `jaxbn.batch_norm` that Flax does not have; see there.
        ghost_batch_size: rows of a group with statistics of its own.
        renorm: bounds of batch renormalization.
        activation: applied after normalization and residual.
        max_pool: applied last.
        update_statistics: False to leave the running statistics alone where the batch's normalise: `batch_stats` need
            not be mutable then. `jaxbn.recalibrate` estimates them all the same.

    Where `momentum` or `renorm` is a schedule, the number of updates is kept too, as `batch_stats/count`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn.linen
        >>> norm = jaxbn.linen.BatchNorm(use_running_average=False)
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> variables = norm.init(jax.random.key(0), x)
        >>> y, updates = norm.apply(variables, x, mutable=["batch_stats"])
        >>> print(y.round(3))
        [[-1. -1.]
         [ 1.  1.]]

    Differs elsewhere: `flax.linen.BatchNorm` computes E[x²] − E[x]² by default, which loses all accuracy where the mean
    is large against the deviation; it also trains on one value per channel silently, where ours gives a `UserWarning`;
    and its running statistics take the type of a wider input, where ours keep the type that they have.

    """

    use_running_average: bool | None = None
    axis: int | Sequence[int] = -1
    momentum: ArrayLike | Schedule = 0.99
    epsilon: ArrayLike = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    axis_name: Hashable | Sequence[Hashable] | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    unbiased: bool = dataclasses.field(default=False, kw_only=True)
    ghost_batch_size: int | None = dataclasses.field(default=None, kw_only=True)
    renorm: BatchRenorm | None = dataclasses.field(default=None, kw_only=True)
    activation: ActivationName | Activation | None = dataclasses.field(default=None, kw_only=True)
    max_pool: MaxPool | None = dataclasses.field(default=None, kw_only=True)
    update_statistics: bool = dataclasses.field(default=True, kw_only=True)

    @nn.compact
    def __call__(
        self,
        x: ArrayLike,
        use_running_average: bool | None = None,
        *,
        mask: ArrayLike | None = None,
        residual: ArrayLike | None = None,
        update_statistics: bool | None = None,
    ) -> jax.Array:
        """Normalises `x` by the batch's statistics, or by the running ones.

        Args:
            x: the input; integers are converted to floating point, as in Flax.
            use_running_average: True for the running statistics; here or at construction.
            mask: which entries count: bool, or weights, broadcastable to `x`.
            residual: of the shape of `x`, added before the activation.
            update_statistics: takes precedence over the one of the construction.

        Returns:
            The normalised input, of the shape of `x`, or the one that `max_pool` gives it.

        """
        x = jnp.asarray(x)
        use_running_average = running(
            nn.merge_param("use_running_average", self.use_running_average, use_running_average), _CHOICE
        )
        initializing = self.is_initializing()
        updates = updating(self.update_statistics, update_statistics) and not (use_running_average or initializing)
        features = feature_axes(self.axis, x.ndim)
        shape = tuple(x.shape[a] for a in features)
        variables, params = self._running_statistics(shape), self._parameters(shape)
        unshared: dict[str, Any] = {"axis_name": None, "axis_index_groups": None, "ghost_batch_size": None}
        recording = None if use_running_average or initializing else which(partial(self.has_variable, "batch_stats"))
        y, statistics = apply(
            params,
            [variable.value for variable in variables],
            x,
            canonicalize_dtype(x, *params, dtype=self.dtype),
            train=not (use_running_average or recording == BY_RUNNING),
            mask=mask,
            residual=residual,
            options=options_of(self) | (unshared if initializing else {}),
            too_few=ignore if initializing or recording is not None else warn,
        )
        if recording is not None:  # for `jaxbn.recalibrate`
            record = add(self.get_variable("batch_stats", recording), x, mask=mask, **options_of(self))
            self.put_variable("batch_stats", recording, record)
        elif updates:
            for variable, value in zip(variables, statistics, strict=True):
                variable.value = value
        return y

    @nn.nowrap
    def _running_statistics(self, shape: tuple[int, ...]) -> list[nn.Variable[jax.Array]]:
        """The variables for mean and variance, and for the count where a schedule reads it."""
        dtype = jnp.float32 if self.force_float32_reductions else self.param_dtype
        initial = initial_statistics(shape, dtype, self.momentum, self.renorm)
        return [self.variable("batch_stats", name, make) for name, make in initial.items()]

    @nn.nowrap
    def _parameters(self, shape: tuple[int, ...]) -> BatchNormParams:
        scale = self.param("scale", self.scale_init, shape, self.param_dtype) if self.use_scale else None
        bias = self.param("bias", self.bias_init, shape, self.param_dtype) if self.use_bias else None
        return BatchNormParams(scale, bias)
