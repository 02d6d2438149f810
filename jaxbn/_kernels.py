"""The algebra of folding: an affine map of each channel, merged into the kernel in front of it or behind it.

Arrays are JAX's or NumPy's; the results are of the same kind.
"""

from typing import Any, TypeVar

import jax
import numpy as np

ArrayT = TypeVar("ArrayT", jax.Array, np.ndarray)


def scaled(kernel: ArrayT, multiplier: ArrayT, axes: tuple[int, ...]) -> ArrayT:
    """The kernel multiplied along its output axes: (K · m) ∗ x = (K ∗ x) · m.

    Args:
        kernel: K, in any layout.
        multiplier: m, with the sizes of `axes`, in their order.
        axes: the output axes of the kernel.

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
    """The kernel K' = K · m, along the inputs, and the bias b = Σ K · s with K ∗ (m · x + s) = K' ∗ x + b.

    Args:
        kernel: K, in any layout.
        multiplier: m, with the sizes of `inputs`, in their order; with groups, one entry per input of all groups.
        shift: s, of the same shape.
        inputs: the input axes of the kernel.
        outputs: the output axes of the kernel; the bias has their sizes.
        groups: `feature_group_count` of `jax.lax.conv_general_dilated`.

    Raises:
        ValueError: there are groups and several input or output axes, or the groups do not divide the outputs.

    """
    split, summed = kernel, tuple(a for a in range(kernel.ndim) if a not in outputs)
    if groups > 1:
        multiplier, shift = (v.reshape(groups, -1) for v in (multiplier, shift))
        split, inputs, summed = _split_groups(kernel, inputs, outputs, groups)
    # A sum of products instead of a matrix product, whose default precision on GPU and TPU is below float32.
    bias: Any = (split * along(shift, inputs, split.ndim)).sum(summed).reshape([kernel.shape[a] for a in outputs])
    return (split * along(multiplier, inputs, split.ndim)).reshape(kernel.shape), bias


def along(vector: ArrayT, axes: tuple[int, ...], ndim: int) -> ArrayT:
    """An array over `axes`, in their order, reshaped to broadcast against one of `ndim` dimensions."""
    order = sorted(range(len(axes)), key=axes.__getitem__)
    return vector.transpose(order)[tuple(slice(None) if a in axes else None for a in range(ndim))]


def _split_groups(
    kernel: ArrayT, inputs: tuple[int, ...], outputs: tuple[int, ...], groups: int
) -> tuple[ArrayT, tuple[int, ...], tuple[int, ...]]:
    """The kernel with an axis for the groups before the outputs, the axes (group, input), and the axes to sum over."""
    if len(inputs) != 1 or len(outputs) != 1 or kernel.shape[outputs[0]] % groups:
        raise ValueError(
            f"feature_group_count={groups} needs one input axis and one output axis whose size it divides; got axes "
            f"{inputs} and {outputs} of a kernel of shape {kernel.shape}"
        )
    (source,), (target,) = inputs, outputs
    shape = (*kernel.shape[:target], groups, -1, *kernel.shape[target + 1 :])
    source += source > target
    summed = tuple(a for a in range(kernel.ndim + 1) if a not in (target, target + 1))
    return kernel.reshape(shape), (target, source), summed
