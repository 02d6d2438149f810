"""The rules by which a multiplier or an offset of each channel passes an operation, towards a kernel that absorbs it.

`in_front(node, m)` returns what makes a node give m · result: factors for its operands, or a new kernel.
`behind(node, position, m, s)` returns what a node gives for m · x + s: a new kernel, and M and S of M · result + S.
Both raise `Blocked` if this is impossible.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbn._axes import is_known
from jaxbn._folding.graph import Constant
from jaxbn._folding.passing import CHANGES_OF_SHAPE, described, parameters
from jaxbn._folding.shapes import Blocked, require_uniform, varying
from jaxbn._folding.terms import Node
from jaxbn._kernels import absorbed, along, scaled


class Behind(NamedTuple):
    """The effect of m · x + s on a node: with these constants, it gives multiplier · result + offset."""

    constants: dict[int, Constant]
    multiplier: np.ndarray
    offset: np.ndarray


def in_front(node: Node, multiplier: np.ndarray) -> dict[int, np.ndarray | Constant]:
    """The factor of each operand, or the new kernel, with which the node gives multiplier · result.

    Raises:
        Blocked: there are no such factors and no such kernel.

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
        return _each(node, multiplier)
    if node.name == "concatenate":
        return _parts(node, multiplier)
    rule = CHANGES_OF_SHAPE.get(node.name)
    if rule is None or len(node.uses) != 1 or isinstance(node.operands[0], Constant):
        raise Blocked(described(node))
    return {0: rule(node, multiplier, False)}


def behind(node: Node, position: int, multiplier: np.ndarray, offset: np.ndarray) -> Behind:
    """The effect on the node of m · x + s in place of x, its operand at `position`.

    Raises:
        Blocked: the result is not an affine function of that operand in each channel.

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
        factor, shift = (_over(v, of_input, sizes) for v in (multiplier, offset))
        new, bias = absorbed(_wide(kernel), factor, shift, inputs, axes, groups)
        ndim = len(node.results[0].shape)
        return Behind({at: _replaced(kernel, new)}, np.ones((1,) * ndim), along(bias, of_output, ndim))
    rule = CHANGES_OF_SHAPE.get(node.name)
    if rule is None or len(node.uses) != 1 or isinstance(node.operands[0], Constant):
        raise Blocked(described(node))
    if node.name in _MAXIMA and not _never_negative(multiplier):
        raise Blocked(f"{described(node)}, and the multiplier is negative somewhere")
    return Behind({}, rule(node, multiplier, True), _offset(node, rule(node, offset, True), offset))


def _kernel(node: Node) -> tuple[int, Constant]:
    """The position and the value of the operand that is a kernel."""
    for position, operand in enumerate(node.operands):
        if isinstance(operand, Constant) and (position == 1 or node.name == "dot_general"):
            return position, operand
    raise Blocked(f"{described(node)}, whose kernel depends on the inputs")


def _convolution(node: Node, _: int) -> tuple[tuple[int, ...], ...]:
    """The axes of the outputs in the kernel and in the result, and of the inputs in the kernel and in x."""
    numbers: lax.ConvDimensionNumbers = parameters(node)["dimension_numbers"]
    lhs, rhs, out = numbers
    return (rhs[0],), (out[1],), (rhs[1],), (lhs[1],)


def _product(node: Node, position: int) -> tuple[tuple[int, ...], ...]:
    """The same axes of `dot_general`, whose batch axes are both inputs and outputs."""
    contracted, batches = parameters(node)["dimension_numbers"]
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
    params = parameters(node)
    if node.name == "dot_general":
        return
    if any(p > 0 for pair in params["padding"] for p in pair):
        raise Blocked(f"{described(node)} is padded")
    if any(d != 1 for d in params["lhs_dilation"]):
        raise Blocked(f"{described(node)} is transposed")
    if params["batch_group_count"] != 1:
        raise Blocked(f"{described(node)} has groups of examples")


def _over(coefficients: np.ndarray, axes: tuple[int, ...], sizes: list[int]) -> np.ndarray:
    """The coefficients as an array over these axes, in their order."""
    order = sorted(range(len(axes)), key=axes.__getitem__)
    picked = coefficients.reshape([coefficients.shape[axes[i]] for i in order])
    return np.broadcast_to(picked.transpose(np.argsort(order)), sizes)


def _wide(kernel: Constant) -> np.ndarray:
    return np.broadcast_to(kernel.wide, kernel.shape)


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


def _each(node: Node, multiplier: np.ndarray) -> dict[int, np.ndarray | Constant]:
    """The factors for a sum or a maximum of arrays: the same for each operand, if it has the channels."""
    shape = node.results[0].shape
    for use in node.uses:
        if len(use.value.shape) != len(shape):
            raise Blocked(described(node))
        require_uniform(multiplier, [a for a, n in enumerate(use.value.shape) if n != shape[a]], described(node))
    return dict.fromkeys(range(len(node.operands)), multiplier)


def _parts(node: Node, multiplier: np.ndarray) -> dict[int, np.ndarray | Constant]:
    """The factors for `concatenate`: for each operand its part."""
    axis, begin = parameters(node)["dimension"], 0
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
    """The offset of the result: multiplied by the number of entries of a sum; impossible behind a padding."""
    if node.name == "pad" and (offset != 0).any():
        raise Blocked("a padding")
    if node.name == "reduce_sum":
        count = math.prod(node.uses[0].value.shape[a] for a in parameters(node)["axes"])
    elif node.name == "reduce_window_sum":
        if any(p for pair in parameters(node)["padding"] for p in pair) and (offset != 0).any():
            raise Blocked("a padded pooling")
        count = math.prod(parameters(node)["window_dimensions"])
    else:
        return mapped
    if not is_known(count):
        raise Blocked("a sum over a symbolic size")
    return mapped * count


def _never_negative(multiplier: np.ndarray) -> bool:
    return not np.iscomplexobj(multiplier) and bool((multiplier >= 0).all())


_MAXIMA = {"max", "reduce_max", "reduce_window_max"}
_SUMS = {"add", "add_any", "sub"}
_KERNELS: dict[str, Callable[[Node, int], tuple[tuple[int, ...], ...]]] = {
    "conv_general_dilated": _convolution,
    "dot_general": _product,
}
