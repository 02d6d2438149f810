"""Flax NNX's own norms inside a model become ours."""

import inspect
from typing import Any, TypeVar

from flax import nnx

Model = TypeVar("Model", bound=nnx.Module)

_OF_VARIABLES = {  # arguments that decide on the variables
    *("self", "num_features", "param_dtype", "use_bias", "use_scale", "bias_init", "scale_init"),
    *("bias_metadata", "scale_metadata", "rngs"),
}


def convert(model: Model, **options: Any) -> Model:  # noqa: ANN401
    """Makes every Flax `nnx.BatchNorm` inside a model ours, in place, with the same variables.

    The norms stay the objects that they are, wherever the model keeps them: references to them hold.

    Args:
        model: any NNX module, or a norm itself.
        options: arguments of `jaxbn.nnx.BatchNorm` that differ from what each norm has, such as `axis_name`,
            `ghost_batch_size` or `momentum`. With a schedule each norm gets a `count`, of 0.

    Returns:
        The model.

    Raises:
        TypeError: there is no such argument, or it decides on the variables, which stay.

    Example:
        >>> import jaxbn.nnx
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs))
        >>> model = jaxbn.nnx.convert(model, axis_name="data")
        >>> isinstance(model.layers[1], jaxbn.nnx.BatchNorm), model.layers[1].axis_name
        (True, 'data')

    Source: PyTorch's `SyncBatchNorm.convert_sync_batchnorm`. A subclass of Flax's that defines a call of its own stays.

    """
    from jaxbn.nnx import BatchNorm  # which passes this function on

    names = inspect.signature(BatchNorm.__init__).parameters.keys() - _OF_VARIABLES
    if unknown := sorted(options.keys() - names):
        raise TypeError(f"convert takes {', '.join(sorted(names))}, and keeps the variables; got {', '.join(unknown)}")
    for _, norm in [*nnx.iter_modules(model)]:
        if isinstance(norm, nnx.BatchNorm) and type(norm).__call__ is nnx.BatchNorm.__call__:
            given = {name: value for name, value in vars(norm).items() if name in names} | options
            _become(norm, BatchNorm(norm.num_features, param_dtype=norm.param_dtype, rngs=nnx.Rngs(0), **given))
    return model


def _become(norm: Any, made: nnx.Module) -> None:  # noqa: ANN401
    """Makes one of Flax's norms what was made of its options, with the variables that it has."""
    attributes = vars(norm)
    variables = {name: attributes[name] for name in ("mean", "var", "scale", "bias", "use_scale", "use_bias")}
    norm.__class__ = type(made)
    attributes.clear()
    attributes.update(vars(made) | variables)
