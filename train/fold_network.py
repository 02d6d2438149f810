"""A network without its norms, that computes the same: each is folded into the layer in front of it."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

import jaxbn
from train.artifact import Norms
from train.models import CNN, MLP


class Folded(NamedTuple):
    """A network to evaluate with, and its variables."""

    model: CNN | MLP
    variables: dict[str, Any]
    norms: Norms


def fold_norms(model: CNN | MLP, params: dict[str, Any], batch_stats: dict[str, Any], epsilon: float) -> Folded:
    """Folds all norms of a network, where they can be.

    A norm behind the activation has no linear layer in front of it, so that such a network stays as it is, and
    evaluates with its running statistics.

    Args:
        model: the network.
        params: its parameters.
        batch_stats: its running statistics.
        epsilon: the norms' ε.

    """
    if model.style.norm is None:
        return Folded(model, {"params": params}, "none")
    if model.style.after:
        return Folded(model, {"params": params, "batch_stats": batch_stats}, "evaluation mode")
    folded = {name: layer for name, layer in params.items() if name not in batch_stats}
    for name, statistics in batch_stats.items():
        layer = name.replace("norm", "conv" if isinstance(model, CNN) else "dense")
        kernel, bias = jaxbn.fold(
            jaxbn.BatchNormParams(params[name]["scale"], params[name]["bias"]),
            jaxbn.BatchNormState(statistics["mean"], statistics["var"], jnp.zeros((), jnp.int32)),
            params[layer]["kernel"],
            epsilon=epsilon,
        )
        folded[layer] = {"kernel": kernel, "bias": bias}
    style = dataclasses.replace(model.style, norm=None)  # without a norm, layers have a bias
    return Folded(model.clone(style=style), {"params": folded}, "folded")
