"""The elementwise half of batch normalization, with its derivative rule.

    z = (x − shift) · multiplier + offset + residual        y = activation(z)

The tangent combines its vectors before it touches anything of the size of `x`:

    dz = dx · multiplier + (x − shift) · dmultiplier + (doffset − multiplier · dshift) + dresidual

Its transpose then consists of two reductions, Σg and Σg·(x − shift), and one product. `jax.checkpoint` around it keeps
`x`, `mask` and `residual` as given, and per-channel vectors; z is computed again. With relu, y may take the place of
the residual. See docs/math.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxbn._axes import expand
from jaxbn._copies import clamped_copy, widened
from jaxbn._dtypes import described
from jaxbn._one_pass import Cut, cut, line
from jaxbn._placement import like
from jaxbn._policy import recomputed
from jaxbn._sum import spread

Activation = Callable[[jax.Array], jax.Array]
GPU = ("cuda", "rocm")  # platforms
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
    """The static arguments of `normalize`."""

    axes: tuple[int, ...]  # the axes of x along which the vectors do not vary
    activation: Activation | None
    dtype: jnp.dtype  # the type of the result
    max_pool: Activation | None = None  # applied last
    picked: bool = False  # x has one entry of each window of a pooling


class Inputs(NamedTuple):
    """The arrays of the size of `x`."""

    x: jax.Array
    mask: jax.Array | None  # masked-out entries of x and residual may be NaN or inf; they are then replaced
    residual: jax.Array | None
    carrier: jax.Array  # the gradient of x goes to it; its values are not read


class Vectors(NamedTuple):
    """The per-channel vectors, in the computing dtype."""

    shift: jax.Array
    multiplier: jax.Array
    offset: jax.Array


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def normalize(form: Form, inputs: Inputs, vectors: Vectors) -> jax.Array:
    """activation((x − shift) · multiplier + offset + residual); the backward pass keeps the inputs and the vectors."""
    y = _activated(form, _affine(form.axes, inputs, vectors)).astype(form.dtype)
    return y if form.max_pool is None else form.max_pool(y)


@partial(normalize.defjvp, symbolic_zeros=True)
def _(form: Form, primals: tuple[Inputs, Vectors], tangents: tuple[Inputs, Vectors]) -> tuple[jax.Array, jax.Array]:
    inputs, vectors = primals
    # If x or the residual is not differentiated, zeros of the size of x would be kept for the backward pass.
    _, _, residual_dot, x_dot = (None if isinstance(dot, SymbolicZero) else dot for dot in tangents[0])
    shift_dot, multiplier_dot, offset_dot = (
        jnp.zeros_like(v) if isinstance(dot, SymbolicZero) else dot for v, dot in zip(vectors, tangents[1], strict=True)
    )
    dots = (x_dot, residual_dot, multiplier_dot, offset_dot - vectors.multiplier * shift_dot)
    y, kept = normalize(form, inputs, vectors), inputs._replace(carrier=inputs.x)
    if _is_gated_by_result(form, inputs):
        return y, _tangent(form, kept._replace(residual=None), vectors, y, dots)
    return y, _tangent(form, kept, vectors, None, dots)


def _is_gated_by_result(form: Form, inputs: Inputs) -> bool:
    """True if relu's gate is taken as y > 0, so that y is kept instead of the residual.

    The next layer keeps y anyway, and often nobody keeps the residual. Without a residual, z is computed from x, which
    is read anyway.
    """
    return _is_relu(form, inputs) and inputs.residual is not None and inputs.mask is None and form.max_pool is None


def _is_relu(form: Form, inputs: Inputs) -> bool:
    return form.activation is jax.nn.relu and not jnp.iscomplexobj(inputs.x)


@partial(recomputed, static_argnums=0)
def _tangent(
    form: Form,
    inputs: Inputs,
    vectors: Vectors,
    y: jax.Array | None,
    dots: tuple[jax.Array | None, jax.Array | None, jax.Array, jax.Array],
) -> jax.Array:
    x_dot, residual_dot, multiplier_dot, offset_dot = dots
    x, x_given = readable(form.axes, inputs, vectors, copy=3)  # after those of the statistics
    centred = x - expand(clamped_copy(vectors.shift), form.axes)
    by = cut(x, form.axes) if _sums_together(form, inputs, x.dtype, y) else None
    z_dot, offset_dot = _of_vectors(by, form.axes, centred, multiplier_dot, offset_dot)
    if x_dot is not None:
        x_dot = x_dot.astype(x.dtype)
        x_dot = x_dot if x_given is None else jnp.where(x_given, x_dot, 0)
        z_dot = x_dot * expand(vectors.multiplier, form.axes) + z_dot
    if residual_dot is not None:
        z_dot = z_dot + _where_given(inputs.mask, inputs.residual, residual_dot.astype(x.dtype))
    if _is_relu(form, inputs) and y is None:
        y_dot = _through_relu(form, inputs, vectors, z_dot, offset_dot)
    else:
        z_dot = z_dot + jnp.where(_true_beside(inputs.x), spread(offset_dot, x, form.axes), jnp.zeros_like(x))
        y_dot = _through_activation(form, inputs, vectors, y, z_dot)
    if form.max_pool is None:
        return y_dot
    y = normalize(form._replace(max_pool=None), inputs, vectors)
    return jax.jvp(form.max_pool, (y,), (y_dot,))[1]


def _sums_together(form: Form, inputs: Inputs, dtype: jnp.dtype, y: jax.Array | None) -> bool:
    """True if one pass for both sums of the transpose pays on a CPU.

    It pays where the cotangent would be written before its sums are taken: in a wider type, or behind the gate of relu.
    But whatever makes the cotangent is then computed in the kernel of the sums, and again in that of the gradient of x.
    Behind a pooling, and along the residuals of a network, this may be much.
    """
    if form.picked or form.max_pool is not None:
        return False
    return inputs.x.dtype != dtype or (_is_relu(form, inputs) and y is None and inputs.residual is None)


def _of_vectors(
    by: Cut | None, axes: tuple[int, ...], centred: jax.Array, multiplier_dot: jax.Array, offset_dot: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The part of the tangent that comes from the vectors, and what it lacks of that of the offset."""

    def apart(multiplier_dot: jax.Array, _: jax.Array, centred: jax.Array) -> jax.Array:
        return centred * spread(multiplier_dot, centred, axes)

    if by is None:
        return apart(multiplier_dot, offset_dot, centred), offset_dot
    together, both = partial(line, axes=axes, by=by), (multiplier_dot, offset_dot)
    z_dot = jax.lax.platform_dependent(*both, centred, cpu=together, default=apart)
    return z_dot, jnp.where(_on(("cpu",)), jnp.zeros_like(offset_dot), offset_dot)


def _through_activation(
    form: Form, inputs: Inputs, vectors: Vectors, y: jax.Array | None, z_dot: jax.Array
) -> jax.Array:
    """The activation's tangent, in the type of the result; with `y` given, that of relu."""
    if y is not None:
        z_dot = z_dot.astype(form.dtype)
        return jax.lax.select(y > 0, z_dot, jnp.zeros_like(z_dot))
    if form.activation is not None:
        _, z_dot = jax.jvp(partial(_activated, form), (_affine(form.axes, inputs, vectors),), (z_dot,))
    return z_dot.astype(form.dtype)


def _true_beside(x: jax.Array) -> jax.Array:
    """True; on a GPU the compiler cannot see that, and believes that it depends on `x`.

    In the transpose, Σg then seems to need x, as Σg·(x − shift) does. The GPU compiler fuses what makes g, such as the
    gate of a relu behind the norm, into all sums or into none, and looks at each sum alone. If the gate needs x and one
    sum did not, it would write the gated g first, and read it again.
    """
    if jnp.iscomplexobj(x):
        return jnp.asarray(True)
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{jnp.finfo(x.dtype).bits}"))
    return ~_on(GPU) | ((bits | 1) != 0)


def _through_relu(form: Form, inputs: Inputs, vectors: Vectors, z_dot: jax.Array, offset_dot: jax.Array) -> jax.Array:
    """z_dot + offset_dot where z > 0, else 0.

    In the transpose, the cotangent is gated before it is widened: in the wider type, the gated one would be written up
    to four times. A GPU has two gates, one for the cotangent's sum, the other for everything else, and fuses each into
    the kernel that needs it. Elsewhere the compiler removes the second, which is of zeros.
    """
    on_gpu, other = _on(GPU), vectors._replace(offset=clamped_copy(vectors.offset))
    nothing = jnp.zeros_like(offset_dot)
    here, apart = jnp.where(on_gpu, nothing, offset_dot), jnp.where(on_gpu, offset_dot, nothing)
    here, apart = (like(z_dot, spread(dot, z_dot, form.axes)) for dot in (here, apart))
    parts = ((vectors, (z_dot + here).astype(form.dtype)), (other, apart.astype(form.dtype)))
    first, second = (
        jax.lax.select(_affine(form.axes, inputs, each) > 0, dot, jnp.zeros_like(dot)) for each, dot in parts
    )
    return first + second


@partial(jax.jit, static_argnums=0, inline=True)
def _on(platforms: tuple[str, ...]) -> jax.Array:
    """True in a program for one of the platforms: a constant."""
    yes, no = (partial(jnp.asarray, answer) for answer in (True, False))
    return jax.lax.platform_dependent(**dict.fromkeys(platforms, yes), default=no)


def _affine(axes: tuple[int, ...], inputs: Inputs, vectors: Vectors) -> jax.Array:
    x, _ = readable(axes, inputs, vectors)
    z = (x - expand(vectors.shift, axes)) * expand(vectors.multiplier, axes) + expand(vectors.offset, axes)
    if inputs.residual is None:
        return z
    residual = inputs.residual if inputs.residual.dtype == z.dtype else _as_stored(inputs.residual)
    return z + _known(inputs.mask, residual, z.dtype)[0]


@jax.custom_jvp
def _as_stored(array: jax.Array) -> jax.Array:
    """The array as stored in memory; on a GPU, the compiler cannot see that it is.

    The GPU compiler removes a rounding to a narrower type that is widened again. It would then store the residual,
    which is usually the result of another norm, a second time in the wider type. It does not look through operations on
    bits, and fuses them. (The TPU compiler recomputes the residual from narrow arrays.)
    """
    return array if jnp.iscomplexobj(array) else _through_bits(array)


_as_stored.defjvps(lambda array_dot, _, __: array_dot)


@partial(jax.jit, inline=True)
def _through_bits(array: jax.Array) -> jax.Array:
    def through(array: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{jnp.finfo(array.dtype).bits}"))
        return jax.lax.bitcast_convert_type((bits ^ 1) ^ 1, array.dtype)

    return jax.lax.platform_dependent(array, cuda=through, rocm=through, default=lambda array: array)


def _activated(form: Form, z: jax.Array) -> jax.Array:
    if form.activation is None:
        return z
    y = form.activation(z)
    if not isinstance(y, jax.Array) or y.shape != z.shape or not jnp.issubdtype(y.dtype, jnp.inexact):
        raise TypeError(
            f"activation must map an array to one of its shape, element by element; it made {described(y)} from "
            f"{described(z)}"
        )
    return y


def readable(
    axes: tuple[int, ...], inputs: Inputs, vectors: Vectors, copy: int = 0
) -> tuple[jax.Array, jax.Array | None]:
    """`x` in the computing dtype, with masked-out, non-finite entries replaced by the shift; and where it was kept."""
    x, given = _known(inputs.mask, inputs.x, vectors.shift.dtype, copy)
    return (x if given is None else jnp.where(given, x, expand(vectors.shift, axes))), given


def _where_given(mask: jax.Array | None, array: jax.Array | None, tangent: jax.Array) -> jax.Array:
    """The tangent of an array, 0 where its entries were replaced."""
    given = None if array is None else _known(mask, array, tangent.dtype)[1]
    return tangent if given is None else jnp.where(given, tangent, 0)


def _known(
    mask: jax.Array | None, array: jax.Array, dtype: jnp.dtype, copy: int = 0
) -> tuple[jax.Array, jax.Array | None]:
    """The array with masked-out, non-finite entries replaced by 0; and where its entries were kept (None: all)."""
    if mask is None:
        return widened(array, dtype, copy), None
    given = like(array, mask if mask.dtype == bool else mask > 0) | jnp.isfinite(array)
    return jnp.where(given, array, 0).astype(dtype), given
