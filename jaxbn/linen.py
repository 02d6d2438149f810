"""A BatchNorm for Flax Linen that calls `jaxbn.batch_norm`, with the arguments and the variables of Flax's own."""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
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

__all__ = ["BatchNorm", "substituted"]

_CHOICE = (
    "jax.lax.cond(use_running_average, lambda: model.apply(..., use_running_average=True, mutable=['batch_stats']), "
    "lambda: model.apply(..., use_running_average=False, mutable=['batch_stats']))"
)


class BatchNorm(nn.Module):
    """Batch normalization, a drop-in replacement for `flax.linen.BatchNorm`.

    Its variables are `params/{scale,bias}` and `batch_stats/{mean,var}`, with the names, shapes and types of Flax's.
    With a schedule for `momentum` or `renorm` there is also `batch_stats/count`, the number of updates. Initialisation
    does not update the running statistics. The formulas are those of `jaxbn.batch_norm`.

    Attributes:
        use_running_average: True to normalise with the running statistics; may be given at the call instead.
        axis: the feature axis, or a tuple of feature axes.
        momentum: the weight kept by the old running statistic: a number, an array with one number per channel, or a
            schedule.
        epsilon: added to the variance under the root.
        dtype: type of the result; by default the type that `x` and the parameters promote to, as in Flax.
        param_dtype: type of scale and bias.
        use_bias: whether to learn β.
        use_scale: whether to learn γ.
        bias_init: initialiser of β.
        scale_init: initialiser of γ.
        axis_name: a mapped axis, or a tuple of them, whose shards share their statistics; unused in initialisation.
        axis_index_groups: groups of indices along that axis; only the shards of one group share.
        use_fast_variance: accepted without effect: the variance is always computed accurately, in one pass.
        force_float32_reductions: if False, the running statistics are stored in `param_dtype`. They are computed in
            float32 or wider in any case.
        unbiased: whether the running variance takes the m/(m−1) estimate. This option and all below are those of
            `jaxbn.batch_norm`, described there; Flax does not have them.
        ghost_batch_size: the number of rows per ghost batch, each with its own statistics.
        renorm: the bounds of batch renormalization.
        activation: applied after normalization and residual.
        max_pool: applied last.
        update_statistics: False to normalise with the batch's statistics without updating the running ones;
            `batch_stats` then need not be mutable. `jaxbn.recalibrate` estimates the statistics nevertheless.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn.linen
        >>> norm = jaxbn.linen.BatchNorm(use_running_average=False)
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> variables = norm.init(jax.random.key(0), x)
        >>> y, updates = norm.apply(variables, x, mutable=["batch_stats"])
        >>> print(y.round(3))
        [[-1. -1.]
         [ 1.  1.]]

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2; the interface is Flax's.

    Differs elsewhere: `flax.linen.BatchNorm` computes the variance as E[x²] − E[x]² by default, which loses all
    accuracy where the mean is far larger than the standard deviation. It trains silently on one value per channel;
    this module gives a `UserWarning`. Its running statistics take the type of a wider input; here they keep their type.

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
        """Normalise `x` with the batch's statistics, and update the running ones; or normalise with the running ones.

        Args:
            x: the input; integers are converted to floating point, as in Flax.
            use_running_average: True to use the running statistics; may be given here or at construction, not in both.
            mask: which entries count: bools or weights, broadcastable to `x`.
            residual: an array of the shape of `x`, added before the activation.
            update_statistics: takes precedence over the attribute.

        Returns:
            The normalised input, of the shape of `x`, or the shape that `max_pool` makes of it.

        Raises:
            TypeError: a flag is traced; an argument is of the wrong kind.
            ValueError: `use_running_average` is given twice or not at all; shapes disagree; an option is out of range.

        """
        return _normalised(
            self, self, x, use_running_average, mask=mask, residual=residual, update_statistics=update_statistics
        )


def _normalised(
    norm: BatchNorm,
    module: nn.Module,
    x: ArrayLike,
    use_running_average: bool | None = None,
    *,
    mask: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    update_statistics: bool | None = None,
) -> jax.Array:
    """Call a norm with the variables of a module: its own, or those of the Flax module that it stands in for."""
    x = jnp.asarray(x)
    use_running_average = running(
        nn.merge_param("use_running_average", norm.use_running_average, use_running_average), _CHOICE
    )
    initializing = module.is_initializing()
    updates = updating(norm.update_statistics, update_statistics) and not (use_running_average or initializing)
    features = feature_axes(norm.axis, x.ndim)
    shape = tuple(x.shape[a] for a in features)
    variables, params = _running_statistics(norm, module, shape), _parameters(norm, module, shape)
    unshared: dict[str, Any] = {"axis_name": None, "axis_index_groups": None, "ghost_batch_size": None}
    recording = None if use_running_average or initializing else which(partial(module.has_variable, "batch_stats"))
    y, statistics = apply(
        params,
        [variable.value for variable in variables],
        x,
        canonicalize_dtype(x, *params, dtype=norm.dtype),
        train=not (use_running_average or recording == BY_RUNNING),
        mask=mask,
        residual=residual,
        options=options_of(norm) | (unshared if initializing else {}),
        too_few=ignore if initializing or recording is not None else warn,
    )
    if recording is not None:  # for `jaxbn.recalibrate`
        record = add(module.get_variable("batch_stats", recording), x, mask=mask, **options_of(norm))
        module.put_variable("batch_stats", recording, record)
    elif updates:
        for variable, value in zip(variables, statistics, strict=True):
            variable.value = value
    return y


def _running_statistics(norm: BatchNorm, module: nn.Module, shape: tuple[int, ...]) -> list[nn.Variable[jax.Array]]:
    """The variables for the mean, the variance and, where a schedule reads it, the count."""
    dtype = jnp.float32 if norm.force_float32_reductions else norm.param_dtype
    initial = initial_statistics(shape, dtype, norm.momentum, norm.renorm)
    return [module.variable("batch_stats", name, make) for name, make in initial.items()]


def _parameters(norm: BatchNorm, module: nn.Module, shape: tuple[int, ...]) -> BatchNormParams:
    scale = module.param("scale", norm.scale_init, shape, norm.param_dtype) if norm.use_scale else None
    bias = module.param("bias", norm.bias_init, shape, norm.param_dtype) if norm.use_bias else None
    return BatchNormParams(scale, bias)


@contextmanager
def substituted(**options: Any) -> Iterator[None]:  # noqa: ANN401
    """Make every `flax.linen.BatchNorm` compute as `jaxbn.linen.BatchNorm`, for models that cannot be edited.

    The result is a context manager and a decorator. The variables and their names stay the same. Under `jax.jit`,
    prefer the decorator: the place where a function is traced decides, so a function that was traced outside the
    context does not change inside it.

    Args:
        options: arguments of `jaxbn.linen.BatchNorm` that replace those of the model, such as `axis_name` or
            `ghost_batch_size`.

    Returns:
        A context manager, which also works as a decorator.

    Raises:
        TypeError: `jaxbn.linen.BatchNorm` has no such argument.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxbn.linen
        >>> model, x = nn.BatchNorm(use_running_average=False), jnp.array([[10000.0], [10001.0]])
        >>> variables = model.init(jax.random.key(0), x)
        >>> exact = jaxbn.linen.substituted()(model.apply)
        >>> y, _ = jax.jit(lambda variables, x: exact(variables, x, mutable=["batch_stats"]))(variables, x)
        >>> print(y.round(3))
        [[-1.]
         [ 1.]]

    Source: PyTorch's `SyncBatchNorm.convert_sync_batchnorm`, which converts a whole model.

    Differs elsewhere: a subclass of Flax's BatchNorm that defines its own `__call__` keeps it.

    """
    names = {field.name for field in dataclasses.fields(BatchNorm)} - {"parent", "name"}
    if unknown := sorted(options.keys() - names):
        raise TypeError(f"substituted takes arguments of jaxbn.linen.BatchNorm; got {', '.join(unknown)}")

    def interceptor(
        next_fun: Callable, args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> object:
        module = context.module
        if context.method_name != "__call__" or type(module).__call__ is not nn.BatchNorm.__call__:
            return next_fun(*args, **kwargs)
        given = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name in names}
        return _normalised(BatchNorm(**(given | options), parent=None), module, *args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield
