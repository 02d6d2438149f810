"""An affine map of each channel, merged into the kernel in front of it or behind it: the algebra of all folding.

Arrays are of JAX or of NumPy; the results are of the same kind.
"""

from typing import Any, TypeVar

import jax
import numpy as np

ArrayT = TypeVar("ArrayT", jax.Array, np.ndarray)


def scaled(kernel: ArrayT, multiplier: ArrayT, axes: tuple[int, ...]) -> ArrayT:
    """K · m, by the output: (K ∗ x) · m = (K · m) ∗ x.

    Args:
        kernel: of any layout.
        multiplier: over `axes` of the kernel, in their order.
        axes: the axes of the outputs.

    """
    return kernel * along(multiplier, axes, kernel.ndim)


def absorbed(
    kernel: ArrayT,
    multiplier: ArrayT,
    shift: ArrayT,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    groups: int = 1,
) -> tuple[ArrayT, ArrayT]:
    """The kernel and bias of K ∗ (m · x + s) = K' ∗ x + b, with K' = K · m by the input and b = Σ K · s.

    Args:
        kernel: of any layout.
        multiplier: over `inputs` of the kernel, in their order; with groups, over the inputs of all groups.
        shift: of the same shape.
        inputs: the axes of the inputs.
        outputs: the axes of the outputs; the bias is over them.
        groups: as in `jax.lax.conv_general_dilated`.

    Raises:
        ValueError: there are groups, and more than one input or output axis, or the groups do not divide the outputs.

    """
    split, summed = kernel, tuple(a for a in range(kernel.ndim) if a not in outputs)
    if groups > 1:
        multiplier, shift = (v.reshape(groups, -1) for v in (multiplier, shift))
        split, inputs, summed = _split_groups(kernel, inputs, outputs, groups)
    # Products summed, and no matrix product: that would be rounded to less than float32 by default on GPU and TPU.
    bias: Any = (split * along(shift, inputs, split.ndim)).sum(summed).reshape([kernel.shape[a] for a in outputs])
    return (split * along(multiplier, inputs, split.ndim)).reshape(kernel.shape), bias


def along(vector: ArrayT, axes: tuple[int, ...], ndim: int) -> ArrayT:
    """An array over `axes`, in their order, ready to be multiplied with one of `ndim` dimensions."""
    order = sorted(range(len(axes)), key=axes.__getitem__)
    return vector.transpose(order)[tuple(slice(None) if a in axes else None for a in range(ndim))]


def _split_groups(
    kernel: ArrayT, inputs: tuple[int, ...], outputs: tuple[int, ...], groups: int
) -> tuple[ArrayT, tuple[int, ...], tuple[int, ...]]:
    """The kernel with the groups as an axis before the outputs; the axes (group, input), and those to sum over."""
    if len(inputs) != 1 or len(outputs) != 1 or kernel.shape[outputs[0]] % groups:
        raise ValueError(
            f"feature_group_count={groups} needs one input and one output axis, and must divide the latter; got axes "
            f"{inputs} and {outputs} of a kernel of shape {kernel.shape}"
        )
    (source,), (target,) = inputs, outputs
    shape = (*kernel.shape[:target], groups, -1, *kernel.shape[target + 1 :])
    source += source > target
    summed = tuple(a for a in range(kernel.ndim + 1) if a not in (target, target + 1))
    return kernel.reshape(shape), (target, source), summed
