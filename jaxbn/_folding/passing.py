"""Operations that do not mix channels: the coefficients of the result from those of the operand, and back."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

from jaxbn._folding.graph import Constant
from jaxbn._folding.shapes import Blocked, regroup, require_uniform
from jaxbn._folding.terms import RESULTS, TERM, Node
from jaxbn._kernels import along


def described(node: Node) -> str:
    """The name of the node for a person."""
    if node.operation is None:
        return "the result of the network"
    name = _NAMES.get(node.name, node.operation.called)
    return f"{name} ({node.operation.scope})" if node.operation.scope and node.name in _OF_WEIGHTS else name


def parameters(node: Node) -> dict[str, Any]:
    """The parameters of the node's primitive."""
    assert node.operation is not None
    return node.operation.params


def _same(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    if node.name == "convert_element_type" and not (node.uses[0].value.is_floating and node.results[0].is_floating):
        raise Blocked("a conversion to or from integers")
    return coefficients


def _reshape(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    shapes = node.uses[0].value.shape, node.results[0].shape
    return regroup(coefficients, *(shapes if forward else shapes[::-1]))


def _transpose(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    permutation = parameters(node)["permutation"]
    return coefficients.transpose(permutation if forward else np.argsort(permutation))


def _squeeze(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    axes = tuple(parameters(node)["dimensions"])
    return np.squeeze(coefficients, axes) if forward else np.expand_dims(coefficients, axes)


def _broadcast(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    axes, old, new = parameters(node)["broadcast_dimensions"], node.uses[0].value.shape, node.results[0].shape
    if forward:
        return along(coefficients, tuple(axes), len(new))
    kept = [axis for axis, size in zip(axes, old, strict=True) if size == new[axis]]
    require_uniform(coefficients, [a for a in range(len(new)) if a not in kept], described(node))
    return coefficients.reshape([coefficients.shape[axis] for axis in axes])


def _unchanged_axes(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    """Slices and paddings: the coefficients must not vary along axes whose size changes."""
    old, new = node.uses[0].value.shape, node.results[0].shape
    require_uniform(coefficients, [a for a in range(len(old)) if old[a] != new[a]], described(node))
    if node.name == "rev":
        require_uniform(coefficients, parameters(node)["dimensions"], described(node))
    if node.name == "pad":
        changed = [a for a, config in enumerate(parameters(node)["padding_config"]) if any(config)]
        require_uniform(coefficients, changed, described(node))
        padding = node.operands[1]
        if not isinstance(padding, Constant) or np.any(np.asarray(padding.array) != 0):
            raise Blocked(described(node))
    return coefficients


def _gather(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    """Slices by index: the coefficients may only vary along axes that are taken as a whole."""
    params, old, new = parameters(node), node.uses[0].value.shape, node.results[0].shape
    numbers = params["dimension_numbers"]
    if params["mode"] == lax.GatherScatterMode.FILL_OR_DROP:
        raise Blocked(described(node))
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    pairs = zip([a for a in range(len(old)) if a not in dropped], numbers.offset_dims, strict=True)
    axes = {a: b for a, b in pairs if params["slice_sizes"][a] == old[a]}
    axes, shape = (axes, new) if forward else ({b: a for a, b in axes.items()}, old)
    require_uniform(coefficients, [a for a in range(coefficients.ndim) if a not in axes], described(node))
    sizes = [1] * len(shape)
    for axis, other in axes.items():
        sizes[other] = coefficients.shape[axis]
    return coefficients.reshape(sizes)


def _reduce(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    axes = tuple(parameters(node)["axes"])
    if not forward:
        return np.expand_dims(coefficients, axes)
    require_uniform(coefficients, axes, described(node))
    return np.squeeze(coefficients, axes)


def _window(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    params, old, new = parameters(node), node.uses[0].value.shape, node.results[0].shape
    changed = [a for a, n in enumerate(params["window_dimensions"]) if n != 1 or old[a] != new[a]]
    require_uniform(coefficients, changed, described(node))
    return coefficients


_Shape = Callable[[Node, np.ndarray, bool], np.ndarray]
CHANGES_OF_SHAPE: dict[str, _Shape] = {
    **dict.fromkeys((TERM, "convert_element_type", "copy", "name", "sharding_constraint", "reshard"), _same),
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "gather": _gather,
    **dict.fromkeys(("slice", "rev", "pad"), _unchanged_axes),
    **dict.fromkeys(("reduce_sum", "reduce_max"), _reduce),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max"), _window),
}
_OF_WEIGHTS = {"conv_general_dilated", "dot_general"}
_NAMES = {
    "conv_general_dilated": "a convolution",
    "dot_general": "a dense kernel",
    "concatenate": "a concatenation",
    "add": "a sum",
    "mul": "a product",
    "max": "a maximum",
    "reduce_window_max": "a max pooling",
    "reduce_max": "a maximum over entries",
    **dict.fromkeys(("dynamic_slice", "gather"), "a selection of entries"),
    RESULTS: "the result of the network",
    TERM: "a value",
}
