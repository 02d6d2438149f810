"""A summary of a network: one row per layer, in the order in which the layers are called."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Layer(NamedTuple):
    """A row of the summary."""

    name: str
    kind: str
    output_shape: tuple[int, ...]  # of one example
    trainable: int  # entries of the layer's parameters
    non_trainable: int  # entries of its running statistics


def summarize(model: nn.Module, variables: dict[str, Any], inputs: jax.Array | jax.ShapeDtypeStruct) -> list[Layer]:
    """List the layers in the order of their first calls; only shapes are computed.

    Args:
        model: called as model(inputs, train=False).
        variables: the model's variables, as arrays or shapes.
        inputs: one batch as the network takes it, or its shape.

    """
    layers: list[Layer] = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:  # noqa: ANN401
        output = call(*args, **kwargs)
        name = "/".join(context.module.path)
        if context.method_name == "__call__" and name and name not in (layer.name for layer in layers):
            counts = [_entries(variables.get(kind, {}), context.module.path) for kind in ("params", "batch_stats")]
            layers.append(Layer(name, type(context.module).__name__, output.shape[1:], *counts))
        return output

    with nn.intercept_methods(record):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, inputs)
    return layers


def _entries(tree: Any, path: tuple[str, ...]) -> int:  # noqa: ANN401
    for key in path:
        tree = tree.get(key, {})
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))
