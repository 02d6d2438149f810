"""Flax Linen's BatchNorm over `jaxbn.batch_norm`: the same arguments, the same variables, no numerics of its own."""

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
    """The call of a norm with the variables of a module: its own, or those of the module that it stands in for."""
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
    """The variables for mean and variance, and for the count where a schedule reads it."""
    dtype = jnp.float32 if norm.force_float32_reductions else norm.param_dtype
    initial = initial_statistics(shape, dtype, norm.momentum, norm.renorm)
    return [module.variable("batch_stats", name, make) for name, make in initial.items()]


def _parameters(norm: BatchNorm, module: nn.Module, shape: tuple[int, ...]) -> BatchNormParams:
    scale = module.param("scale", norm.scale_init, shape, norm.param_dtype) if norm.use_scale else None
    bias = module.param("bias", norm.bias_init, shape, norm.param_dtype) if norm.use_bias else None
    return BatchNormParams(scale, bias)


@contextmanager
def substituted(**options: Any) -> Iterator[None]:  # noqa: ANN401
    """A context in which Flax's Linen BatchNorm computes as `jaxbn.linen.BatchNorm`, in models that cannot be edited.

    The variables are the same, and so are their names. It is a decorator, too, which is the safer form under `jax.jit`:
    what counts is where a function is traced, and a function that was traced outside stays as it is.

    Args:
        options: arguments of `jaxbn.linen.BatchNorm` that differ from what the model gives, such as `axis_name` or
            `ghost_batch_size`.

    Returns:
        a context manager that decorates, too.

    Raises:
        TypeError: there is no such argument.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxbn.linen
        >>> model, x = nn.BatchNorm(use_running_average=False), jnp.array([[10000.0], [10001.0]])
        >>> variables = model.init(jax.random.key(0), x)
        >>> exact = jaxbn.linen.substituted()(model.apply)
        >>> y, _ = jax.jit(lambda variables, x: exact(variables, x, mutable=["batch_stats"]))(variables, x)
        >>> print(y.round(3))
        [[-1.]
         [ 1.]]

    Differs elsewhere: a subclass of Flax's that defines a call of its own keeps it.

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
