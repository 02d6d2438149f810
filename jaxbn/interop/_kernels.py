"""PyTorch: kernels of dense and convolutional layers, the other part of a network that has norms."""

from typing import cast

import jax
import numpy as np

from jaxbn.interop._layer import array


def kernel_from_torch(weight: object, *, transposed: bool = False, groups: int = 1) -> jax.Array:
    """Converts the weight of a PyTorch layer to the layout of Flax: features last, inputs before them.

    With k the spatial sizes, I the inputs, O the outputs and G the groups:

        dense                   (O, I)         →  (I, O)
        convolution             (O, I/G, k…)   →  (k…, I/G, O)
        transposed convolution  (I, O/G, k…)   →  (k…, I/G, O), turned round along each k

    Args:
        weight: an array or a CPU tensor: the entry `weight` of a Linear, a Conv1d, 2d or 3d, or a ConvTranspose1d, 2d
            or 3d.
        transposed: whether it is of a transposed convolution, which has the layout of no other.
        groups: as the layer has it; `feature_group_count` in JAX.

    Returns:
        The kernel, a NumPy array of the same type: for `flax.linen.Dense`, `Conv` and `ConvTranspose`, their NNX twins,
        and `jax.lax.conv_general_dilated` in channels-last order.

    Raises:
        TypeError: `weight` is not an array of floating numbers.
        ValueError: it has no such shape, or `groups` does not divide it.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> interop.kernel_from_torch(np.ones((64, 3, 7, 7))).shape
        (7, 7, 3, 64)
        >>> interop.kernel_from_torch(np.ones((10, 512))).shape
        (512, 10)

    Differs elsewhere: PyTorch pads a transposed convolution by k − 1 − padding on each side, which Flax takes as it is
    used: `padding=[(k - 1 - p, k - 1 - p + output_padding)]`. PyTorch flattens channels first: a dense layer behind a
    feature map of more than one pixel needs its inputs in another order. See docs/migrating.md.

    """
    given = _checked("weight", weight)
    _check_groups("weight", given, 0, groups)
    if transposed:
        given = _merged_groups(np.flip(given, tuple(range(2, given.ndim))), groups)  # (O, I/G, k…)
    return cast(jax.Array, np.ascontiguousarray(np.moveaxis(given, (1, 0), (-2, -1))))


def kernel_to_torch(kernel: object, *, transposed: bool = False, groups: int = 1) -> np.ndarray:
    """Converts the kernel of a Flax layer to the layout of PyTorch: the inverse of `kernel_from_torch`, bit for bit.

    Args:
        kernel: of shape (I, O), or (k…, I/G, O).
        transposed: whether it is of a transposed convolution.
        groups: `feature_group_count`.

    Returns:
        A NumPy array of the same type; `torch.from_numpy` makes a tensor of it.

    Raises:
        TypeError: `kernel` is not an array of floating numbers.
        ValueError: it has no such shape, or `groups` does not divide it.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> interop.kernel_to_torch(np.ones((7, 7, 3, 64))).shape
        (64, 3, 7, 7)

    """
    given = _checked("kernel", kernel)
    _check_groups("kernel", given, given.ndim - 1, groups)
    result = np.moveaxis(given, (-2, -1), (1, 0))
    if transposed:
        result = np.flip(_merged_groups(result, groups), tuple(range(2, given.ndim)))
    return np.ascontiguousarray(result)


def _merged_groups(weight: np.ndarray, groups: int) -> np.ndarray:
    """(G · a, b, k…) as (G · b, a, k…), group by group: its own inverse."""
    a, (b, *spatial) = weight.shape[0] // groups, weight.shape[1:]
    return weight.reshape(groups, a, b, *spatial).swapaxes(1, 2).reshape(groups * b, a, *spatial)


def _checked(name: str, value: object) -> np.ndarray:
    result = np.asarray(array(name, value))
    if not 2 <= result.ndim <= 5:
        raise ValueError(
            f"{name} must be of a dense layer (2 dimensions) or of a convolution (3 to 5); got shape {result.shape}. "
            "Vectors, such as a bias, need no conversion"
        )
    return result


def _check_groups(name: str, array: np.ndarray, axis: int, groups: int) -> None:
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or array.shape[axis] % groups:
        raise ValueError(
            f"groups must be a positive integer that divides axis {axis} of {name}, of shape {array.shape}; "
            f"got {groups!r}"
        )
