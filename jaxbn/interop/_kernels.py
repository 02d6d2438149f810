"""Conversions of the kernels of PyTorch's dense and convolutional layers, the layers around the norms."""

from typing import cast

import jax
import numpy as np

from jaxbn.interop._layer import array


def kernel_from_torch(weight: object, *, transposed: bool = False, groups: int = 1) -> jax.Array:
    """Convert the weight of a PyTorch layer to the layout of Flax, with the output features last.

    With the spatial sizes k, I inputs, O outputs and G groups:

        dense                   (O, I)         →  (I, O)
        convolution             (O, I/G, k…)   →  (k…, I/G, O)
        transposed convolution  (I, O/G, k…)   →  (k…, I/G, O), flipped along each k

    Args:
        weight: an array or a CPU tensor: the entry `weight` of a Linear, a Conv1d, 2d or 3d, or a ConvTranspose1d, 2d
            or 3d.
        transposed: whether the layer is a transposed convolution, whose layout is different.
        groups: the layer's `groups`, which is `feature_group_count` in JAX.

    Returns:
        The kernel, a NumPy array of the same type, for `flax.linen.Dense`, `Conv` and `ConvTranspose`, for the same
        modules of `flax.nnx`, and for `jax.lax.conv_general_dilated` with channels last.

    Raises:
        TypeError: `weight` is not an array of floating numbers.
        ValueError: `weight` does not have such a shape, or `groups` does not divide its channels.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> interop.kernel_from_torch(np.ones((64, 3, 7, 7))).shape
        (7, 7, 3, 64)
        >>> interop.kernel_from_torch(np.ones((10, 512))).shape
        (512, 10)

    Source: the documentation of `torch.nn.Conv2d`, `torch.nn.ConvTranspose2d` and `flax.linen.Conv`.

    Differs elsewhere: PyTorch's `padding` p of a transposed convolution stands for k − 1 − p entries on each side; Flax
    takes the number of entries itself: `padding=[(k - 1 - p, k - 1 - p + output_padding)]`. PyTorch flattens with the
    channels first, so a dense layer behind a feature map of more than one pixel needs its inputs in another order. See
    docs/migrating.md.

    """
    given = _checked("weight", weight)
    _check_groups("weight", given, 0, groups)
    if transposed:
        given = _merged_groups(np.flip(given, tuple(range(2, given.ndim))), groups)  # (O, I/G, k…)
    return cast(jax.Array, np.ascontiguousarray(np.moveaxis(given, (1, 0), (-2, -1))))


def kernel_to_torch(kernel: object, *, transposed: bool = False, groups: int = 1) -> np.ndarray:
    """Convert the kernel of a Flax layer to the layout of PyTorch: the inverse of `kernel_from_torch`, bit for bit.

    Args:
        kernel: the kernel, of shape (I, O) or (k…, I/G, O).
        transposed: whether the layer is a transposed convolution.
        groups: the layer's `feature_group_count`.

    Returns:
        A NumPy array of the same type. Make a tensor of it with `torch.from_numpy`.

    Raises:
        TypeError: `kernel` is not an array of floating numbers.
        ValueError: `kernel` does not have such a shape, or `groups` does not divide its channels.

    Example:
        >>> import numpy as np
        >>> from jaxbn import interop
        >>> interop.kernel_to_torch(np.ones((7, 7, 3, 64))).shape
        (64, 3, 7, 7)

    Source: the documentation of `torch.nn.Conv2d`, `torch.nn.ConvTranspose2d` and `flax.linen.Conv`.

    """
    given = _checked("kernel", kernel)
    _check_groups("kernel", given, given.ndim - 1, groups)
    result = np.moveaxis(given, (-2, -1), (1, 0))
    if transposed:
        result = np.flip(_merged_groups(result, groups), tuple(range(2, given.ndim)))
    return np.ascontiguousarray(result)


def _merged_groups(weight: np.ndarray, groups: int) -> np.ndarray:
    """(G · a, b, k…) as (G · b, a, k…), group by group; applied twice, it changes nothing."""
    a, (b, *spatial) = weight.shape[0] // groups, weight.shape[1:]
    return weight.reshape(groups, a, b, *spatial).swapaxes(1, 2).reshape(groups * b, a, *spatial)


def _checked(name: str, value: object) -> np.ndarray:
    result = np.asarray(array(name, value))
    if not 2 <= result.ndim <= 5:
        raise ValueError(
            f"{name} must be of a dense layer (2 dimensions) or of a convolution (3 to 5); got shape {result.shape}. "
            "Pass vectors, such as a bias, to Flax as they are"
        )
    return result


def _check_groups(name: str, array: np.ndarray, axis: int, groups: int) -> None:
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or array.shape[axis] % groups:
        raise ValueError(
            f"groups must be a positive integer that divides axis {axis} of {name}, of shape {array.shape}; "
            f"got {groups!r}"
        )
