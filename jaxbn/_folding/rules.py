"""How a multiplication or an addition of each channel passes an operation, towards a kernel that takes it in.

`in_front(node, m)` says how a node gives m · result: what to multiply its operands by, or the kernel that does so.
`behind(node, position, m, s)` says what a node gives of m · x + s: its kernel, and the M, S of M · result + S.
Both raise `Blocked` where there is no such thing.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbn._axes import is_known
from jaxbn._folding.graph import Constant
from jaxbn._folding.shapes import Blocked, regroup, require_uniform, varying
from jaxbn._folding.terms import RESULTS, TERM, Node
from jaxbn._kernels import absorbed, scaled


class Behind(NamedTuple):
    """What a node makes of m · x + s: multiplier · result + offset, with other constants."""

    constants: dict[int, Constant]
    multiplier: np.ndarray
    offset: np.ndarray


def in_front(node: Node, multiplier: np.ndarray) -> dict[int, np.ndarray | Constant]:
    """For operands, what to multiply each by; for kernels, the new one.

    Raises:
        Blocked: the node does not give a multiple of its result.

    """
    if node.name in _KERNELS:
        position, kernel = _kernel(node)
        axes, of_output = _KERNELS[node.name](node, position)[:2]
        require_uniform(multiplier, sorted(varying(multiplier) - set(of_output)), described(node))
        vector = _over(multiplier, of_output, [kernel.shape[a] for a in axes])
        return {position: _replaced(kernel, scaled(_wide(kernel), vector, axes))}
    if node.name in _MAXIMA and not _never_negative(multiplier):
        raise Blocked(f"{described(node)}, and the multiplier is negative somewhere")
    if node.name in _SUMS or (node.name == "max" and len(node.uses) == 2):
        return dict.fromkeys(range(len(node.operands)), multiplier)
    if node.name == "concatenate":
        return _parts(node, multiplier)
    rule = _SHAPES.get(node.name)
    if rule is None or len(node.uses) != 1:
        raise Blocked(described(node))
    return {0: rule(node, multiplier, False)}


def behind(node: Node, position: int, multiplier: np.ndarray, offset: np.ndarray) -> Behind:
    """The node with m · x + s in place of x = operand `position`.

    Raises:
        Blocked: the result is not affine in it, channel by channel.

    """
    if node.name in _KERNELS:
        at, kernel = _kernel(node)
        axes, of_output, inputs, of_input = _KERNELS[node.name](node, at)
        require_uniform(multiplier, sorted(varying(multiplier) - set(of_input)), described(node))
        require_uniform(offset, sorted(varying(offset) - set(of_input)), described(node))
        groups = node.operation.params.get("feature_group_count", 1) if node.operation else 1
        if (offset != 0).any():
            _require_no_padding(node)
        sizes = [kernel.shape[a] for a in inputs]
        sizes = sizes if groups == 1 else [groups * sizes[0]]
        vectors = (_over(v, of_input, sizes) for v in (multiplier, offset))
        new, bias = absorbed(_wide(kernel), *vectors, inputs, axes, groups)
        ndim = len(node.results[0].shape)
        sizes = [1] * ndim
        for axis, size in zip(of_output, bias.shape, strict=True):
            sizes[axis] = size
        order = sorted(range(len(of_output)), key=of_output.__getitem__)
        return Behind({at: _replaced(kernel, new)}, np.ones((1,) * ndim), bias.transpose(order).reshape(sizes))
    rule = _SHAPES.get(node.name)
    if rule is None or len(node.uses) != 1:
        raise Blocked(described(node))
    if node.name in _MAXIMA and not _never_negative(multiplier):
        raise Blocked(f"{described(node)}, and the multiplier is negative somewhere")
    return Behind({}, rule(node, multiplier, True), _offset(node, rule(node, offset, True), offset))


def described(node: Node) -> str:
    """The node, as a person would name it."""
    if node.operation is None:
        return "the result of the network"
    name = _NAMES.get(node.name, node.operation.called)
    return f"{name} ({node.operation.scope})" if node.operation.scope and node.name in _KERNELS else name


def _kernel(node: Node) -> tuple[int, Constant]:
    """The operand that is a kernel."""
    for position, operand in enumerate(node.operands):
        if isinstance(operand, Constant) and (position == 1 or node.name == "dot_general"):
            return position, operand
    raise Blocked(f"{described(node)}, whose kernel does not follow from the weights alone")


def _convolution(node: Node, _: int) -> tuple[tuple[int, ...], ...]:
    """Axes of the kernel's outputs, and of those in the result; of the kernel's inputs, and of those in x."""
    numbers: lax.ConvDimensionNumbers = _params(node)["dimension_numbers"]
    lhs, rhs, out = numbers
    return (rhs[0],), (out[1],), (rhs[1],), (lhs[1],)


def _product(node: Node, position: int) -> tuple[tuple[int, ...], ...]:
    """The same of `dot_general`, whose batch axes are inputs and outputs alike."""
    contracted, batches = _params(node)["dimension_numbers"]
    shapes = [o.shape if isinstance(o, Constant) else o.value.shape for o in node.operands]
    free = [
        [a for a in range(len(s)) if a not in (*c, *b)] for s, c, b in zip(shapes, contracted, batches, strict=True)
    ]
    batch, other = batches[position], 1 - position
    begin = len(batch) + (len(free[0]) if position else 0)
    of_output = (*range(len(batch)), *range(begin, begin + len(free[position])))
    return (
        (*batch, *free[position]),
        of_output,
        (*contracted[position], *batch),
        (*contracted[other], *batches[other]),
    )


def _require_no_padding(node: Node) -> None:
    params = _params(node)
    if node.name == "dot_general":
        return
    if any(p > 0 for pair in params["padding"] for p in pair):
        raise Blocked(f"{described(node)} is padded")
    if any(d != 1 for d in params["lhs_dilation"]):
        raise Blocked(f"{described(node)} is transposed")
    if params["batch_group_count"] != 1:
        raise Blocked(f"{described(node)} has groups of examples")


def _over(coefficients: np.ndarray, axes: tuple[int, ...], sizes: list[int]) -> np.ndarray:
    """Coefficients as an array over these axes, in their order."""
    order = sorted(range(len(axes)), key=axes.__getitem__)
    picked = coefficients.reshape([coefficients.shape[axes[i]] for i in order])
    return np.broadcast_to(picked.transpose(np.argsort(order)), sizes)


def _wide(kernel: Constant) -> np.ndarray:
    array = np.asarray(kernel.array)
    complex_ = jnp.issubdtype(array.dtype, jnp.complexfloating)
    return np.broadcast_to(array.astype(np.complex128 if complex_ else np.float64), kernel.shape)


def _replaced(old: Constant, new: np.ndarray) -> Constant:
    """The new kernel, in the type of the old one."""
    dtype = old.array.dtype
    if np.iscomplexobj(new) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise Blocked("a kernel of real numbers, and the norm is complex")
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise Blocked("a kernel of integers")
    with np.errstate(all="ignore"):
        rounded = new.astype(dtype)
    if np.isfinite(new).all() and not np.isfinite(rounded.astype(new.dtype)).all():
        raise Blocked(f"a kernel that would be too large for {dtype.name}")
    return Constant(rounded, old.shape)


def _parts(node: Node, multiplier: np.ndarray) -> dict[int, np.ndarray | Constant]:
    """`concatenate`: to each operand its part."""
    axis, begin = _params(node)["dimension"], 0
    parts: dict[int, np.ndarray | Constant] = {}
    for position, operand in enumerate(node.operands):
        if isinstance(operand, Constant):
            raise Blocked(described(node))
        size = operand.value.shape[axis]
        if axis not in varying(multiplier):
            parts[position] = multiplier
        elif is_known(begin) and is_known(size):
            parts[position] = multiplier.take(range(begin, begin + size), axis)
        else:
            raise Blocked(described(node))
        begin = begin + size
    return parts


def _offset(node: Node, mapped: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """An offset behind a sum, to which every entry adds it, or behind a padding, which does not have it."""
    if node.name == "pad" and (offset != 0).any():
        raise Blocked("a padding")
    if node.name == "reduce_sum":
        count = math.prod(node.uses[0].value.shape[a] for a in _params(node)["axes"])
    elif node.name == "reduce_window_sum":
        if any(p for pair in _params(node)["padding"] for p in pair) and (offset != 0).any():
            raise Blocked("a padded pooling")
        count = math.prod(_params(node)["window_dimensions"])
    else:
        return mapped
    if not is_known(count):
        raise Blocked("a sum over a symbolic size")
    return mapped * count


def _never_negative(multiplier: np.ndarray) -> bool:
    return not np.iscomplexobj(multiplier) and bool((multiplier >= 0).all())


def _params(node: Node) -> dict[str, Any]:
    assert node.operation is not None
    return node.operation.params


# Coefficients of a value from those of the operand (forward), or the other way.


def _same(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    if node.name == "convert_element_type" and not (node.uses[0].value.is_floating and node.results[0].is_floating):
        raise Blocked("a conversion to or from integers")
    return coefficients


def _reshape(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    shapes = node.uses[0].value.shape, node.results[0].shape
    return regroup(coefficients, *(shapes if forward else shapes[::-1]))


def _transpose(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    permutation = _params(node)["permutation"]
    return coefficients.transpose(permutation if forward else np.argsort(permutation))


def _squeeze(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    axes = tuple(_params(node)["dimensions"])
    return np.squeeze(coefficients, axes) if forward else np.expand_dims(coefficients, axes)


def _broadcast(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    axes, old, new = _params(node)["broadcast_dimensions"], node.uses[0].value.shape, node.results[0].shape
    if forward:
        sizes = [1] * len(new)
        for axis, size in zip(axes, coefficients.shape, strict=True):
            sizes[axis] = size
        return coefficients.reshape(sizes)
    kept = [axis for axis, size in zip(axes, old, strict=True) if size == new[axis]]
    require_uniform(coefficients, [a for a in range(len(new)) if a not in kept], described(node))
    return coefficients.reshape([coefficients.shape[axis] for axis in axes])


def _unchanged_axes(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    """Slices, paddings: along axes whose size changes there must be no channels."""
    old, new = node.uses[0].value.shape, node.results[0].shape
    require_uniform(coefficients, [a for a in range(len(old)) if old[a] != new[a]], described(node))
    if node.name == "rev":
        require_uniform(coefficients, _params(node)["dimensions"], described(node))
    if node.name == "pad":
        changed = [a for a, config in enumerate(_params(node)["padding_config"]) if any(config)]
        require_uniform(coefficients, changed, described(node))
        padding = node.operands[1]
        if not isinstance(padding, Constant) or np.any(np.asarray(padding.array) != 0):
            raise Blocked(described(node))
    return coefficients


def _reduce(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    axes = tuple(_params(node)["axes"])
    if not forward:
        return np.expand_dims(coefficients, axes)
    require_uniform(coefficients, axes, described(node))
    return np.squeeze(coefficients, axes)


def _window(node: Node, coefficients: np.ndarray, forward: bool) -> np.ndarray:
    params, old, new = _params(node), node.uses[0].value.shape, node.results[0].shape
    changed = [a for a, n in enumerate(params["window_dimensions"]) if n != 1 or old[a] != new[a]]
    require_uniform(coefficients, changed, described(node))
    return coefficients


_Shape = Callable[[Node, np.ndarray, bool], np.ndarray]
_SHAPES: dict[str, _Shape] = {
    **dict.fromkeys((TERM, "convert_element_type", "copy", "name"), _same),
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    **dict.fromkeys(("slice", "rev", "pad"), _unchanged_axes),
    **dict.fromkeys(("reduce_sum", "reduce_max"), _reduce),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max"), _window),
}
_MAXIMA = {"max", "reduce_max", "reduce_window_max"}
_SUMS = {"add", "add_any", "sub"}
_KERNELS: dict[str, Callable[[Node, int], tuple[tuple[int, ...], ...]]] = {
    "conv_general_dilated": _convolution,
    "dot_general": _product,
}
_NAMES = {
    "conv_general_dilated": "a convolution",
    "dot_general": "a dense kernel",
    "concatenate": "a concatenation",
    "add": "a sum",
    "mul": "a product",
    "max": "a maximum",
    "reduce_window_max": "a max pooling",
    "reduce_max": "a maximum over entries",
    "dynamic_slice": "a slice",
    RESULTS: "the result of the network",
    TERM: "a value",
}
