"""Folding of a norm in evaluation into the kernel in front of it, or into the kernel behind it."""

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxbn import _check as check
from jaxbn._axes import feature_axes
from jaxbn._dtypes import at_least_16_bits, can_compute, promote
from jaxbn._kernels import absorbed, scaled
from jaxbn._root import inverse_root
from jaxbn._state import BatchNormParams, BatchNormState


def fold(
    params: BatchNormParams,
    state: BatchNormState,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    epsilon: ArrayLike,
    kernel_axis: int | Sequence[int] = -1,
) -> tuple[jax.Array, jax.Array]:
    """Fold a norm in evaluation into the convolution or dense layer in front of it.

    Let K ∗ x be any map that is linear in the kernel K, with one output channel per entry of `kernel_axis`. Then

        γ · (K ∗ x + b − μ) / √(σ² + ε) + β = K' ∗ x + b'
        m = γ / √(σ² + ε)        K' = K · m        b' = β + (b − μ) · m

    This is exact for all strides, paddings, dilations and groups.

    Args:
        params: γ and β of the norm; either may be None.
        state: μ and σ², the running statistics of the norm.
        kernel: floating or complex, in any layout: (in, out), HWIO, OIHW, …
        bias: b, of the shape of γ; None for a layer without bias.
        epsilon: ε of the norm.
        kernel_axis: the axis of the kernel that holds the output features: -1 for HWIO and (in, out), 0 for OIHW, 1 for
            PyTorch's transposed IOHW. For several feature axes, a tuple in their order.

    Returns:
        `(kernel, bias)` of the layer that replaces both. The kernel keeps its shape and type. The bias has the shape of
        the running mean, and the type of the given bias, or of the kernel without one. Both are computed in float32 or
        wider and rounded once.

    Raises:
        TypeError: an argument is not a floating array, or its type cannot hold the result; `state` is None.
        ValueError: `kernel_axis` does not have the sizes of the norm's features; `epsilon` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.BatchNormParams(jnp.full(1, 3.0), jnp.ones(1)), jaxbn.init(1)[1]
        >>> state = state._replace(mean=jnp.full(1, 5.0), var=jnp.full(1, 4.0))
        >>> kernel, bias = jaxbn.fold(params, state, jnp.array([[2.0]]), epsilon=0.0)
        >>> print(kernel, bias)  # (2x − 5)/2 · 3 + 1
        [[3.]] [-6.5]

    In PyTorch's layout (in, out/g, h, w), a transposed convolution with g groups has its outputs on two axes. Split the
    first axis, and pass the axis of the groups and the axis of the outputs within a group:

        >>> g, kernel = 2, jnp.ones((4, 3, 5, 5))  # 4 features in, 6 out
        >>> params, state = jax.tree.map(lambda a: a.reshape(g, -1) if a.ndim else a, jaxbn.init(6))
        >>> split = kernel.reshape(g, -1, *kernel.shape[1:])
        >>> folded, bias = jaxbn.fold(params, state, split, epsilon=1e-5, kernel_axis=(0, 2))
        >>> folded.reshape(kernel.shape).shape, bias.reshape(-1).shape
        ((4, 3, 5, 5), (6,))

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", 2018, equation 14.

    Beware: the folded layer adds b' ≈ −μ·m to K' ∗ x ≈ μ·m. Where `|μ|` is far larger than σ, this sum loses precision:
    the rounding error is about `|μ|/σ` times the precision of the type. The norm itself subtracts first, without that
    loss.

    Differs elsewhere: PyTorch's `torch.nn.utils.fusion.fuse_conv_bn_weights` computes in the type of the arrays.

    """
    kernel, vector = _floating("kernel", kernel), None if bias is None else _floating("bias", bias)
    axes = _kernel_axes(kernel_axis, kernel, "kernel_axis")
    _check_features(params, state, "kernel_axis", axes, kernel.shape)
    if vector is not None and vector.shape != state.mean.shape:
        raise ValueError(f"bias must have the shape of the norm's features, {state.mean.shape}; got {vector.shape}")
    form = _affine(params, state, check.epsilon(epsilon), kernel, vector)
    centred = -form.mean if vector is None else vector.astype(form.mean.dtype) - form.mean
    folded = scaled(kernel.astype(form.multiplier.dtype), form.multiplier, axes)
    return _rounded("kernel", folded, kernel), _rounded("bias", form.bias + centred * form.multiplier, kernel, vector)


def fold_into_next(
    params: BatchNormParams,
    state: BatchNormState,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    epsilon: ArrayLike,
    kernel_input_axis: int | Sequence[int] = -2,
    kernel_axis: int | Sequence[int] = -1,
    feature_group_count: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Fold a norm in evaluation into the convolution or dense layer directly behind it.

    With m = γ / √(σ² + ε):

        K ∗ (γ · (x − μ) / √(σ² + ε) + β) + b = K' ∗ x + b'
        K' = K · m, along the input axis
        b' = b + Σ K · (β − μ · m), summed over all kernel entries of one output

    This is exact for a dense layer and for a convolution *without padding*. Padding puts zeros behind the norm; after
    folding, the zeros would be in front of it, and the outputs along the border would differ (pad with μ − β/m
    instead). The same holds for transposed convolutions. With an activation between norm and kernel, folding is not
    possible.

    Args:
        params: γ and β of the norm; either may be None.
        state: μ and σ², the running statistics of the norm.
        kernel: floating or complex, in any layout.
        bias: b, one entry per output of the kernel; None for a layer without bias.
        epsilon: ε of the norm.
        kernel_input_axis: the axis of the kernel that holds the input features, which are the features of the norm: -2
            for HWIO and (in, out), 1 for OIHW. For several feature axes, a tuple in their order.
        kernel_axis: the axis, or a tuple of the axes, of the output features: -1 for HWIO and (in, out), 0 for OIHW.
        feature_group_count: the number of groups of the convolution, as in `jax.lax.conv_general_dilated`; the input
            axis of the kernel then has the features of one group.

    Returns:
        `(kernel, bias)` of the layer that replaces both. Both keep their types; a new bias has the type of the kernel.
        They are computed in float32 or wider and rounded once.

    Raises:
        TypeError: an argument is not a floating array, or its type cannot hold the result; `state` is None.
        ValueError: the axes do not have the sizes of the norm's features; `epsilon` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.init(2)
        >>> state = state._replace(mean=jnp.array([1.0, 2.0]), var=jnp.array([4.0, 1.0]))
        >>> kernel, bias = jaxbn.fold_into_next(params, state, jnp.array([[2.0], [3.0]]), epsilon=0.0)
        >>> print(kernel.ravel(), bias)  # 2 · (x − 1)/2 + 3 · (y − 2)
        [1. 3.] [-7.]

    If images are flattened in between, from (N, H, W, C) to (N, H·W·C), split that axis of the kernel again:

        >>> kernel = jnp.ones((5 * 5 * 2, 3))
        >>> folded, bias = jaxbn.fold_into_next(params, state, kernel.reshape(-1, 2, 3), epsilon=1e-5)
        >>> folded.reshape(kernel.shape).shape, bias.shape
        ((50, 3), (3,))

    Source: the linearity of K ∗ x in x; the counterpart of `jaxbn.fold`.

    Beware: as in `jaxbn.fold`, rounding errors grow with `|μ|/σ`.

    """
    kernel, vector = _floating("kernel", kernel), None if bias is None else _floating("bias", bias)
    inputs = _kernel_axes(kernel_input_axis, kernel, "kernel_input_axis")
    outputs = _kernel_axes(kernel_axis, kernel, "kernel_axis")
    if vector is not None and vector.shape != tuple(kernel.shape[a] for a in outputs):
        expected = tuple(kernel.shape[a] for a in outputs)
        raise ValueError(f"bias must have the shape of the kernel's outputs, {expected}; got {vector.shape}")
    _check_features(params, state, "kernel_input_axis", inputs, kernel.shape, feature_group_count)
    form = _affine(params, state, check.epsilon(epsilon), kernel, vector)
    shift = form.bias - form.mean * form.multiplier
    wide = kernel.astype(form.multiplier.dtype)
    folded, new_bias = absorbed(wide, form.multiplier, shift, inputs, outputs, feature_group_count)
    new_bias = new_bias if vector is None else new_bias + vector.astype(new_bias.dtype)
    return _rounded("kernel", folded, kernel), _rounded("bias", new_bias, kernel, vector)


class _Affine(NamedTuple):
    """The vectors of (x − mean) · multiplier + bias, all of one type, float32 or wider."""

    mean: jax.Array
    multiplier: jax.Array
    bias: jax.Array


def _affine(
    params: BatchNormParams,
    state: BatchNormState,
    epsilon: float | jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
) -> _Affine:
    """The affine map of the norm in evaluation, in a type that also holds the layer's arrays."""
    arrays = [a for a in (kernel, bias, *params, state.mean, state.var) if a is not None]
    dtype = promote(*(jnp.result_type(a) for a in arrays))
    real = jnp.finfo(dtype).dtype
    multiplier = inverse_root(jnp.asarray(state.var).astype(real), epsilon).astype(dtype)
    if params.scale is not None:
        multiplier = jnp.asarray(params.scale).astype(dtype) * multiplier
    offset = jnp.zeros_like(multiplier) if params.bias is None else jnp.asarray(params.bias).astype(dtype)
    return _Affine(jnp.asarray(state.mean).astype(dtype), multiplier, offset)


def _floating(name: str, array: ArrayLike) -> jax.Array:
    result = check.converted(name, array)
    if not can_compute(result.dtype):
        condition = f"floating or complex{at_least_16_bits(result.dtype)}"
        raise TypeError(f"{name} must be {condition}; got {result.dtype.name}. Fold before quantizing")
    return result


def _kernel_axes(axis: int | Sequence[int], kernel: jax.Array, name: str) -> tuple[int, ...]:
    """The axes of the kernel as non-negative integers, in the given order."""
    try:
        feature_axes(axis, kernel.ndim)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must name axes of the kernel, each once: integers from {-kernel.ndim} to {kernel.ndim - 1} for a "
            f"kernel of shape {kernel.shape}; got {axis!r}"
        ) from None
    return tuple(operator.index(a) % kernel.ndim for a in (axis if isinstance(axis, Sequence) else (axis,)))


def _check_features(
    params: BatchNormParams,
    state: BatchNormState,
    name: str,
    axes: tuple[int, ...],
    shape: tuple[int, ...],
    groups: int = 1,
) -> None:
    """Raise unless the norm's vectors have the sizes of these axes of the kernel (times the groups)."""
    vectors = check.values(params, state)
    if state is None:
        raise TypeError(
            "state must be a jaxbn.BatchNormState(mean, var, count); got None. Only a norm that evaluates with running "
            "statistics can be folded"
        )
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ValueError(f"feature_group_count must be a positive integer; got {groups!r}")
    features = vectors["state.mean"].shape
    for part, vector in vectors.items():
        if vector.shape != features:
            raise ValueError(f"{part} must have the shape of state.mean, {features}; got {vector.shape}")
    sizes = tuple(shape[a] for a in axes)
    if (math.prod(sizes) * groups,) != features if groups > 1 else sizes != features:
        found = f"{sizes} in each of {groups} groups" if groups > 1 else f"{sizes}"
        raise ValueError(
            f"the norm has features of shape {features}, and {name} {axes} of the kernel of shape {shape} has {found}. "
            f"Pass the {name} that holds the norm's features. For groups and flattened axes see the docstring"
        )


def _rounded(name: str, result: jax.Array, kernel: jax.Array, given: jax.Array | None = None) -> jax.Array:
    dtype = kernel.dtype if given is None else given.dtype
    if jnp.iscomplexobj(result) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"{name} must be complex to be folded with a complex norm; got {dtype.name}. Convert it to "
            f"{result.dtype.name} first"
        )
    return result.astype(dtype)
