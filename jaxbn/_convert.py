"""Conversion of Flax NNX's own norms inside a model."""

import inspect
from typing import Any, TypeVar

from flax import nnx

Model = TypeVar("Model", bound=nnx.Module)

_OF_VARIABLES = {  # arguments that determine the variables
    *("self", "num_features", "param_dtype", "use_bias", "use_scale", "bias_init", "scale_init"),
    *("bias_metadata", "scale_metadata", "rngs"),
}


def convert(model: Model, **options: Any) -> Model:  # noqa: ANN401
    """Turn every `flax.nnx.BatchNorm` inside a model into a `jaxbn.nnx.BatchNorm`, in place, with the same variables.

    The norms remain the same objects, so all references to them stay valid.

    Args:
        model: any NNX module, or a norm itself.
        options: arguments of `jaxbn.nnx.BatchNorm` that replace those of each norm, such as `axis_name`,
            `ghost_batch_size` or `momentum`. With a schedule, each norm gets a `count` of 0.

    Returns:
        The same model.

    Raises:
        TypeError: `jaxbn.nnx.BatchNorm` has no such argument, or the argument would determine the variables.

    Example:
        >>> import jaxbn.nnx
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs))
        >>> model = jaxbn.nnx.convert(model, axis_name="data")
        >>> isinstance(model.layers[1], jaxbn.nnx.BatchNorm), model.layers[1].axis_name
        (True, 'data')

    Source: PyTorch's `SyncBatchNorm.convert_sync_batchnorm`.

    Differs elsewhere: a subclass of Flax's BatchNorm that defines its own `__call__` is not converted.

    """
    from jaxbn.nnx import BatchNorm  # here, since that module imports this one

    names = inspect.signature(BatchNorm.__init__).parameters.keys() - _OF_VARIABLES
    if unknown := sorted(options.keys() - names):
        raise TypeError(
            f"options must be arguments of jaxbn.nnx.BatchNorm that keep the variables: {', '.join(sorted(names))}; "
            f"got {', '.join(unknown)}"
        )
    for _, norm in [*nnx.iter_modules(model)]:
        if isinstance(norm, nnx.BatchNorm) and type(norm).__call__ is nnx.BatchNorm.__call__:
            given = {name: value for name, value in vars(norm).items() if name in names} | options
            _become(norm, BatchNorm(norm.num_features, param_dtype=norm.param_dtype, rngs=nnx.Rngs(0), **given))
    return model


def _become(norm: Any, made: nnx.Module) -> None:  # noqa: ANN401
    """Give one of Flax's norms the class and the attributes of a new norm, and keep its variables."""
    attributes = vars(norm)
    variables = {name: attributes[name] for name in ("mean", "var", "scale", "bias", "use_scale", "use_bias")}
    norm.__class__ = type(made)
    attributes.clear()
    attributes.update(vars(made) | variables)
