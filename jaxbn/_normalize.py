"""The elementwise half of batch normalization, with its derivative rule.

    z = (x − shift) · multiplier + offset + residual        y = activation(z)

The tangent combines its vectors before it touches anything of the size of `x`:

    dz = dx · multiplier + (x − shift) · dmultiplier + (doffset − multiplier · dshift) + dresidual

so that its transpose is two reductions, Σg and Σg·(x − shift), and one product. `jax.checkpoint` around it keeps `x`,
`mask` and `residual` as they were given, and vectors; z is computed again. See docs/math.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxbn._axes import expand
from jaxbn._copies import copy_above
from jaxbn._policy import recomputed

Activation = Callable[[jax.Array], jax.Array]
ActivationName = Literal["relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid", "elu"]

ACTIVATIONS: dict[ActivationName, Activation] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "tanh": jax.nn.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
}


class Form(NamedTuple):
    """What `normalize` does, apart from the values."""

    axes: tuple[int, ...]  # of x, those along which the vectors do not vary
    activation: Activation | None
    dtype: jnp.dtype  # of the result


class Inputs(NamedTuple):
    """What is of the size of `x`."""

    x: jax.Array
    mask: jax.Array | None  # where it does not count an entry, that may be NaN or inf: it is replaced then
    residual: jax.Array | None


class Vectors(NamedTuple):
    """What broadcasts to `x`, all of the type that is computed in."""

    shift: jax.Array
    multiplier: jax.Array
    offset: jax.Array


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def normalize(form: Form, inputs: Inputs, vectors: Vectors) -> jax.Array:
    """activation((x − shift) · multiplier + offset + residual), keeping the inputs as they are, and vectors."""
    z = _affine(form.axes, inputs, vectors)
    return (z if form.activation is None else form.activation(z)).astype(form.dtype)


@partial(normalize.defjvp, symbolic_zeros=True)
def _(form: Form, primals: tuple[Inputs, Vectors], tangents: tuple[Inputs, Vectors]) -> tuple[jax.Array, jax.Array]:
    inputs, vectors = primals
    # Zeros of the size of x would be kept for the backward pass, where x or the residual is not differentiated.
    x_dot, _, residual_dot = (None if isinstance(dot, SymbolicZero) else dot for dot in tangents[0])
    shift_dot, multiplier_dot, offset_dot = (
        jnp.zeros_like(v) if isinstance(dot, SymbolicZero) else dot for v, dot in zip(vectors, tangents[1], strict=True)
    )
    dots = (x_dot, residual_dot, multiplier_dot, offset_dot - vectors.multiplier * shift_dot)
    return normalize(form, inputs, vectors), _tangent(form, inputs, vectors, dots)


@partial(recomputed, static_argnums=0)
def _tangent(
    form: Form, inputs: Inputs, vectors: Vectors, dots: tuple[jax.Array | None, jax.Array | None, jax.Array, jax.Array]
) -> jax.Array:
    x_dot, residual_dot, multiplier_dot, offset_dot = dots
    x, finite = readable(form.axes, inputs, vectors)
    centred = x - expand(copy_above(vectors.shift), form.axes)
    z_dot = centred * expand(multiplier_dot, form.axes) + expand(offset_dot, form.axes)
    if x_dot is not None:
        x_dot = x_dot.astype(x.dtype)
        x_dot = x_dot if finite is None else jnp.where(finite, x_dot, 0)
        z_dot = x_dot * expand(vectors.multiplier, form.axes) + z_dot
    if residual_dot is not None:
        z_dot = z_dot + residual_dot.astype(x.dtype)
    if form.activation is not None:
        _, z_dot = jax.jvp(form.activation, (_affine(form.axes, inputs, vectors),), (z_dot,))
    return z_dot.astype(form.dtype)


def _affine(axes: tuple[int, ...], inputs: Inputs, vectors: Vectors) -> jax.Array:
    x, _ = readable(axes, inputs, vectors)
    z = (x - expand(vectors.shift, axes)) * expand(vectors.multiplier, axes) + expand(vectors.offset, axes)
    return z if inputs.residual is None else z + inputs.residual.astype(z.dtype)


def readable(axes: tuple[int, ...], inputs: Inputs, vectors: Vectors) -> tuple[jax.Array, jax.Array | None]:
    """`x` in the type that is computed in, with what does not count and is not finite replaced by the shift."""
    x = inputs.x.astype(vectors.shift.dtype)
    if inputs.mask is None:
        return x, None
    readable = (inputs.mask if inputs.mask.dtype == bool else inputs.mask > 0) | jnp.isfinite(x)
    return jnp.where(readable, x, expand(vectors.shift, axes)), readable
