"""A network without its norms, that computes the same: each is folded into the layer in front of it, or behind."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

import jaxbn
from train.network.models import CNN, MLP

Norms = Literal["folded", "evaluation mode", "none"]  # what became of them


class Folded(NamedTuple):
    """A network to evaluate with, and its variables."""

    model: CNN | MLP
    variables: dict[str, Any]
    norms: Norms


def unfolded(model: CNN | MLP, variables: dict[str, Any]) -> Folded:
    """The network as it was trained, evaluating with its running statistics."""
    return Folded(model, variables, "none" if model.layers.norm is None else "evaluation mode")


def fold_norms(model: CNN | MLP, variables: dict[str, Any], epsilon: float) -> Folded:
    """Folds all norms of a network, where they can be.

    Where activation, pooling or padding stands between a norm and the layers on both sides of it, the network stays as
    it is, and evaluates with its running statistics.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        epsilon: the norms' ε.

    """
    if model.layers.norm is None or not can_fold(model):
        return unfolded(model, variables)
    params, batch_stats = variables["params"], variables["batch_stats"]
    folded = {name: layer for name, layer in params.items() if name not in batch_stats}
    for name, statistics in batch_stats.items():
        into_next = model.layers.after or name == "norm0"
        layer = layer_of(model, int(name.removeprefix("norm")) + into_next)
        fold = jaxbn.fold_into_next if into_next else jaxbn.fold
        kernel, bias = fold(
            *norm_arrays(params[name], statistics),
            folded[layer]["kernel"],
            folded[layer].get("bias"),
            epsilon=epsilon,
        )
        folded[layer] = {"kernel": kernel, "bias": bias}
    layers = dataclasses.replace(model.layers, norm=None)  # without a norm, layers have a bias
    return Folded(model.clone(layers=layers), {"params": folded}, "folded")


def norm_arrays(
    params: Mapping[str, jax.Array], statistics: Mapping[str, jax.Array]
) -> tuple[jaxbn.BatchNormParams, jaxbn.BatchNormState]:
    """A Flax norm's arrays as `jaxbn` takes them; of how many batches the statistics are, Flax does not say."""
    count = jnp.zeros((), jnp.int32)
    return (
        jaxbn.BatchNormParams(params.get("scale"), params.get("bias")),
        jaxbn.BatchNormState(statistics["mean"], statistics["var"], count),
    )


def can_fold(model: CNN | MLP) -> bool:
    """Whether each norm has a convolution or dense layer right in front of it or, without padding, right behind."""
    if isinstance(model, MLP):
        return True
    return not model.layers.after and not (model.norm_input and model.padding == "SAME")


def layer_of(model: CNN | MLP, number: int) -> str:
    """The name of a layer, counted from 1 at the inputs."""
    counted, last = (model.channels, "dense") if isinstance(model, CNN) else (model.hidden, "logits")
    return last if number > len(counted) else f"{'conv' if isinstance(model, CNN) else 'dense'}{number}"
