"""A BatchNorm for Flax NNX that calls `jaxbn.batch_norm`, with the arguments and the variables of Flax's own."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.module import first_from
from flax.nnx.nn import dtypes
from flax.typing import Dtype, Initializer, PromoteDtypeFn
from jax.typing import ArrayLike

from jaxbn._axes import feature_axes
from jaxbn._convert import convert
from jaxbn._flax import apply, ignore, initial_statistics, options_of, running, updating, warn
from jaxbn._max_pool import MaxPool
from jaxbn._normalize import Activation, ActivationName
from jaxbn._recalibrate_nnx import recalibrate
from jaxbn._recording import BY_RUNNING, add, which
from jaxbn._renorm import BatchRenorm
from jaxbn._schedules import Schedule
from jaxbn._state import BatchNormParams

__all__ = ["BatchNorm", "convert", "recalibrate"]

_NOT_GIVEN = (
    "use_running_average must be True or False, and no one said which. Pass it to the constructor or the call of "
    "BatchNorm, or set it for a whole model: model.train(), model.eval(), or nnx.view(model, use_running_average=True)"
)
_CHOICE = (
    "nnx.cond(use_running_average, lambda norm, x: norm(x, use_running_average=True), "
    "lambda norm, x: norm(x, use_running_average=False), norm, x)"
)


class BatchNorm(nnx.Module):
    """Batch normalization, a drop-in replacement for `flax.nnx.BatchNorm`.

    Its variables are `scale` and `bias` (`nnx.Param`), and `mean` and `var` (`nnx.BatchStat`), with the names, shapes
    and types of Flax's. With a schedule for `momentum` or `renorm` there is also `count` (`nnx.BatchStat`), the number
    of updates. The formulas are those of `jaxbn.batch_norm`.

    Example:
        >>> import jax.numpy as jnp, jaxbn.nnx
        >>> from flax import nnx
        >>> norm = jaxbn.nnx.BatchNorm(2, momentum=0.9, rngs=nnx.Rngs(0))
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> print(norm(x).round(3))
        [[-1. -1.]
         [ 1.  1.]]
        >>> print(norm.mean[...], norm.var[...])
        [0.2 2. ] [ 1.  10.9]
        >>> norm.eval()
        >>> print(norm(norm.mean[...]).round(3))
        [0. 0.]

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2; the interface is Flax's.

    Differs elsewhere: `flax.nnx.BatchNorm` computes the variance as E[x²] − E[x]² by default, which loses all accuracy
    where the mean is far larger than the standard deviation. With `dtype` in half precision it rounds `x` before the
    normalization, and in evaluation the running statistics. Its statistics lose the imaginary part of complex input;
    here they become complex at the first update. It trains silently on one value per channel; this module gives a
    `UserWarning`.

    """

    def __init__(
        self,
        num_features: int | Sequence[int],
        *,
        use_running_average: bool | None = False,
        axis: int | Sequence[int] = -1,
        momentum: ArrayLike | Schedule = 0.99,
        epsilon: ArrayLike = 1e-5,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = nnx.initializers.zeros,
        scale_init: Initializer = nnx.initializers.ones,
        axis_name: Hashable | Sequence[Hashable] | None = None,
        axis_index_groups: Sequence[Sequence[int]] | None = None,
        use_fast_variance: bool = True,
        promote_dtype: PromoteDtypeFn = dtypes.promote_dtype,
        rngs: nnx.Rngs,
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
        unbiased: bool = False,
        ghost_batch_size: int | None = None,
        renorm: BatchRenorm | None = None,
        activation: ActivationName | Activation | None = None,
        max_pool: MaxPool | None = None,
        update_statistics: bool = True,
    ) -> None:
        """Make the variables.

        Args:
            num_features: the size of the feature axis, or a sequence with the sizes of several, in the order of the
                axes.
            use_running_average: True to normalise with the running statistics; `train()`, `eval()` and `nnx.view` set
                it, and the call may override it.
            axis: the feature axis, or a tuple of feature axes.
            momentum: the weight kept by the old running statistic: a number, an array with one number per channel, or a
                schedule.
            epsilon: added to the variance under the root.
            dtype: type of the result; by default the type that `x`, the statistics and the parameters promote to, as in
                Flax.
            param_dtype: type of scale and bias.
            use_bias: whether to learn β.
            use_scale: whether to learn γ.
            bias_init: initialiser of β.
            scale_init: initialiser of γ.
            axis_name: a mapped axis, or a tuple of them, whose shards share their statistics.
            axis_index_groups: groups of indices along that axis; only the shards of one group share.
            use_fast_variance: accepted without effect: the variance is always computed accurately, in one pass.
            promote_dtype: called as Flax does, with `(x, mean, var, scale, bias)` and `dtype=`; the types that it
                returns for `x`, scale and bias are used. Running statistics keep their type. Flax's own function only
                decides the type of the result: nothing is rounded before the normalization.
            rngs: random number generators for the initialisers.
            bias_metadata: metadata of the variable `bias`.
            scale_metadata: metadata of the variable `scale`.
            unbiased: whether the running variance takes the m/(m−1) estimate. This option and all below are those of
                `jaxbn.batch_norm`, described there; Flax does not have them.
            ghost_batch_size: the number of rows per ghost batch, each with its own statistics.
            renorm: the bounds of batch renormalization.
            activation: applied after normalization and residual.
            max_pool: applied last.
            update_statistics: False to normalise with the batch's statistics without updating the running ones;
                `nnx.view` sets it as well. `jaxbn.nnx.recalibrate` estimates the statistics nevertheless.

        """
        shape = tuple(num_features) if isinstance(num_features, Sequence) else (num_features,)
        statistics = initial_statistics(shape, jnp.float32, momentum, renorm)
        self.mean, self.var = nnx.BatchStat(statistics["mean"]()), nnx.BatchStat(statistics["var"]())
        self.count = nnx.BatchStat(statistics["count"]()) if "count" in statistics else nnx.data(None)

        def parameter(init: Initializer, metadata: Mapping[str, Any]) -> nnx.Param[jax.Array]:
            return nnx.Param(init(rngs.params(), shape, param_dtype), **metadata)

        self.scale = parameter(scale_init, scale_metadata) if use_scale else nnx.data(None)
        self.bias = parameter(bias_init, bias_metadata) if use_bias else nnx.data(None)

        self.num_features = _frozen(num_features)
        self.use_running_average = use_running_average
        self.axis = _frozen(axis)
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.axis_name = _frozen(axis_name)
        self.axis_index_groups = _frozen(axis_index_groups)
        self.use_fast_variance = use_fast_variance
        self.promote_dtype = promote_dtype
        self.unbiased = unbiased
        self.ghost_batch_size = ghost_batch_size
        self.renorm = nnx.data(renorm) if any(isinstance(bound, jax.Array) for bound in renorm or ()) else renorm
        self.activation = activation
        self.max_pool = max_pool
        self.update_statistics = update_statistics

    def __call__(
        self,
        x: ArrayLike,
        use_running_average: bool | None = None,
        *,
        mask: ArrayLike | None = None,
        residual: ArrayLike | None = None,
        update_statistics: bool | None = None,
    ) -> jax.Array:
        """Normalise `x` with the batch's statistics, and update the running ones; or normalise with the running ones.

        Args:
            x: the input; integers are converted to floating point, as in Flax.
            use_running_average: True to use the running statistics; takes precedence over the attribute.
            mask: which entries count: bools or weights, broadcastable to `x`.
            residual: an array of the shape of `x`, added before the activation.
            update_statistics: takes precedence over the attribute.

        Returns:
            The normalised input, of the shape of `x`, or the shape that `max_pool` makes of it.

        Raises:
            TypeError: a flag is traced; an argument is of the wrong kind.
            ValueError: `use_running_average` is None everywhere; shapes disagree; an option is out of range.

        """
        given = first_from(use_running_average, self.use_running_average, error_msg=_NOT_GIVEN)
        use_running_average = running(given, _CHOICE)
        updates = updating(self.update_statistics, update_statistics) and not use_running_average
        variables = [variable for variable in (self.mean, self.var, self.count) if variable is not None]
        params = BatchNormParams(*(None if p is None else p[...] for p in (self.scale, self.bias)))
        x = jnp.asarray(x)
        _check_features(self, x.shape)
        x, params, dtype = self._promoted(x, params)
        recording = None if use_running_average else which(partial(hasattr, self))
        y, statistics = apply(
            params,
            [variable[...] for variable in variables],
            x,
            dtype,
            train=not (use_running_average or recording == BY_RUNNING),
            mask=mask,
            residual=residual,
            options=options_of(self),
            too_few=ignore if recording is not None else warn,
        )
        if recording is not None:  # for `jaxbn.nnx.recalibrate`
            record = getattr(self, recording)
            record.set_value(add(record.get_value(), x, mask=mask, **options_of(self)))
        elif updates:
            for variable, value in zip(variables, statistics, strict=True):
                _update(variable, jax.lax.stop_gradient(value))
        return y

    def set_view(self, use_running_average: bool | None = None, *, update_statistics: bool | None = None) -> None:
        """Set the flags for `nnx.view`. (`nnx.view_info` prints this text and relies on its indentation.)

        Args:
          use_running_average: if True, normalise with the running statistics; if False, with those of the batch.
          update_statistics: if False, do not update the running statistics.

        """
        if use_running_average is not None:
            self.use_running_average = use_running_average
        if update_statistics is not None:
            self.update_statistics = update_statistics

    def _promoted(self, x: jax.Array, params: BatchNormParams) -> tuple[jax.Array, BatchNormParams, Dtype]:
        """Convert the input and the parameters as `promote_dtype` says, and return them with the type of the result."""
        arrays = (x, self.mean[...], self.var[...], *params)
        if self.promote_dtype is dtypes.promote_dtype:
            return x, params, dtypes.canonicalize_dtype(*arrays, dtype=self.dtype)
        x, _, _, scale, bias = self.promote_dtype(arrays, dtype=self.dtype)
        return x, BatchNormParams(scale, bias), dtypes.canonicalize_dtype(x, scale, bias, dtype=self.dtype)


def _check_features(norm: BatchNorm, shape: tuple[int, ...]) -> None:
    """Raise unless `x` has as many features as the norm was made for."""
    axis: Any = norm.axis
    found = tuple(shape[a] for a in feature_axes(axis, len(shape)))
    if found != norm.mean[...].shape:
        raise ValueError(
            f"x of shape {shape} has {found} features on axis {norm.axis}, and this BatchNorm was made with "
            f"num_features={norm.num_features}. Make it with num_features={found[0] if len(found) == 1 else found}, or "
            "pass the axis that holds the features"
        )


def _update(variable: nnx.BatchStat[jax.Array], value: jax.Array) -> None:
    """Set the variable. A complex value makes a real variable complex, unless its type is fixed."""
    if value.dtype == (dtype := variable[...].dtype):
        variable[...] = value
    elif isinstance(variable.get_raw_value(), jax.Ref):
        raise TypeError(
            f"a mutable array of {dtype.name} cannot hold a statistic of {value.dtype.name}: make the variables of "
            "this BatchNorm without ref=True"
        )
    else:
        variable.set_value(value)


def _frozen(value: object) -> Hashable:
    """Turn lists into tuples, since attributes of an NNX module must be hashable."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
