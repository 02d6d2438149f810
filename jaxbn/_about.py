"""Mean and variance about a guess: one pass if the guess is good, otherwise more passes about better guesses.

    d = x − guess     offset = Σwd / W     square = Σw|d|² / W     mean = guess + offset     var = square − |offset|²

`x − guess` does not round where it matters: nearby floating-point numbers subtract exactly. The two sums round, with
an error of δ times `square` = var + |offset|², so the relative error of var is at most about δ (1 + |offset|²/var). A
guess is good if |offset|² ≤ var + ε. If not, the guess moves to the mean and the sums are taken again. Each pass
brings the guess nearer by a factor of about 10⁷, so one or two passes are enough. See docs/math.md.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._axes import expand, is_known, size
from jaxbn._copies import copy_below, widened
from jaxbn._sample import remedian, sample
from jaxbn._sum import abs2, mean
from jaxbn._weights import in_units, power_of_two

NEAR = 1  # |offset|² over var + ε up to which a guess is good
PASSES = 12  # at most: from one end of the numbers to the other


class Entries(NamedTuple):
    """The entries as given by the user: each reader converts them, so that no copy is kept."""

    x: jax.Array
    mask: jax.Array | None  # which entries count, or their weights; what does not count may be NaN or inf in x
    unit: jax.Array | None  # the unit of the weights; None for 1


class Centred(NamedTuple):
    """The mean, as shift + offset, and the variance."""

    shift: jax.Array  # the guess, without gradient
    offset: jax.Array
    var: jax.Array  # real, biased, at least 0


class _Found(NamedTuple):
    centred: Centred
    poor: jax.Array  # where the guess is too far from the mean and a nearer one exists, or squares may have overflowed


@partial(jax.jit, static_argnums=0, inline=True)  # without a jit, the loop would be compiled at each call
def about(axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array) -> Centred:
    """The mean and the variance of `entries` along `axes`, of total weight `weight`.

    The first pass is about the given guess. It needs no other pass over x before it, so a TPU takes the sums inside the
    convolution that makes x.

    On a GPU, a loop whose end depends on data makes the host wait. Therefore the GPU makes one pass, about the median
    of a sample. This is accurate for all data except data constructed against the sampled places. If no sample can be
    taken, it makes two passes.
    """
    on_gpu = partial(_of_sample if _can_sample(axes, entries) else _twice, axes)
    branches: dict[str, Callable] = {"cuda": on_gpu, "rocm": on_gpu, "default": partial(_refined, axes)}
    return jax.lax.platform_dependent(entries, weight, guess, epsilon, **branches)


def _refined(
    axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array
) -> Centred:
    """As many passes as the data need: one if the guess is good."""

    def goes_on(carry: tuple[jax.Array, jax.Array, _Found]) -> jax.Array:
        number, poor, _ = carry
        return (number < PASSES) & poor

    def improved(carry: tuple[jax.Array, jax.Array, _Found]) -> tuple[jax.Array, jax.Array, _Found]:
        number, _, found = carry
        # Without the barrier, the compiler moves everything that depends on x alone in front of the loop, where it is
        # computed at every step, needed or not.
        own, centred = jax.lax.optimization_barrier((entries, found.centred))
        again = _scaled(axes, own, weight, _moved(centred), epsilon)
        better = jax.tree.map(partial(jnp.where, found.poor), again, found)  # no channel depends on another
        return number + 1, jnp.any(better.poor), better

    first = _plain(axes, entries, weight, guess, epsilon)
    return jax.lax.while_loop(goes_on, improved, (jnp.asarray(1), jnp.any(first.poor), first))[2].centred


def _twice(axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array) -> Centred:
    """Two passes, the second about the mean. The barrier fixes the mean, whose last bits depend on who computes it."""
    first = _plain(axes, entries, weight, guess, epsilon)
    return _scaled(axes, entries, weight, jax.lax.optimization_barrier(_moved(first.centred)), epsilon).centred


def _of_sample(
    axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array
) -> Centred:
    """One pass, about the median of a sample, in units of the sample."""
    values = sample(entries.x, axes).astype(guess.dtype)
    guess = remedian(values)
    half, _ = _half_distance((0,), Entries(values, None, None), guess)
    return _in_units(axes, entries, weight, guess, _unit(half, (0,)), epsilon).centred


def _can_sample(axes: tuple[int, ...], entries: Entries) -> bool:
    known = is_known(size(entries.x.shape, axes))
    return bool(axes) and known and entries.mask is None and not any(jax.typeof(entries.x).sharding.spec)


def _plain(axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array) -> _Found:
    """The moments about a guess, in the unit of x."""
    # The compiler must not share anything between the two sums (see _copies): they have guesses of opposite sign.
    (x, w), (same, _) = (_read(axes, entries, guess, copy) for copy in (1, 2))
    offset = _mean(axes, w, weight, x - expand(copy_below(guess), axes))
    square = _mean(axes, w, weight, abs2(same + expand(-guess, axes)))
    found = Centred(guess, offset, _not_negative(square - abs2(offset)))
    info = jnp.finfo(square.dtype)
    in_range = jnp.isfinite(square) & (square + epsilon >= info.tiny / info.eps)
    return _Found(found, _is_far(found, abs2(offset), found.var + epsilon) | ~in_range)


def _scaled(axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array) -> _Found:
    """The moments about a guess, in units of the largest distance from it: no square leaves the range of the type."""
    half, _ = _half_distance(axes, entries, guess)
    return _in_units(axes, entries, weight, guess, _unit(half, axes), epsilon)


def _in_units(
    axes: tuple[int, ...],
    entries: Entries,
    weight: jax.Array,
    guess: jax.Array,
    unit: jax.Array,
    epsilon: jax.Array,
) -> _Found:
    """The moments about a guess, in units of twice `unit`, a power of two."""
    half, w = _half_distance(axes, entries, guess)
    d = half * expand(1 / unit, axes).astype(half.dtype)
    offset = _mean(axes, w, weight, d)
    var = _not_negative(_mean(axes, w, weight, abs2(d)) - abs2(offset))
    most = jnp.finfo(var.dtype).max
    found = Centred(guess, 2 * offset * unit.astype(offset.dtype), jnp.minimum(4 * var * unit * unit, most))
    far = _is_far(
        found, abs2(offset), var + epsilon / unit / unit / 4
    )  # compared in the same units, since squares may be too large in the unit of x
    return _Found(found, far)


def _is_far(found: Centred, offset2: jax.Array, var: jax.Array) -> jax.Array:
    """True if a nearer guess exists and would make the variance more accurate."""
    return ~(offset2 <= NEAR * var) & (_moved(found) != found.shift)


def _not_negative(var: jax.Array) -> jax.Array:
    """The variance, at least 0. The zeros have its type, since jax2onnx promotes a Python number."""
    return jnp.maximum(var, jnp.zeros_like(var))


def _moved(found: Centred) -> jax.Array:
    """The next guess: the mean if it is finite, otherwise the old guess."""
    middle = found.shift + found.offset
    return jnp.where(jnp.isfinite(middle), middle, found.shift)


def _half_distance(axes: tuple[int, ...], entries: Entries, guess: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """(x − guess)/2, which does not overflow for finite numbers; and the weights."""
    x, w = _read(axes, entries, guess)
    return x * 0.5 - expand(guess, axes) * 0.5, w


def _unit(half: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A power of two near the largest magnitude along `axes`."""
    return power_of_two(jnp.maximum(abs(half.real), abs(half.imag)), axes)


def _read(
    axes: tuple[int, ...], entries: Entries, guess: jax.Array, copy: int = 0
) -> tuple[jax.Array, jax.Array | None]:
    """The entries in the type of the statistics, masked-out ones replaced by the guess; and the weights."""
    x, mask, unit = entries
    if mask is None:
        return widened(x, guess.dtype, copy), None
    w, counts = in_units(mask, unit, x, axes)
    known = jnp.where(counts, x, 0).astype(guess.dtype)  # for jax_debug_nans: no operation sees masked-out entries
    return jnp.where(counts, known, expand(guess, axes)), w


def _mean(axes: tuple[int, ...], w: jax.Array | None, weight: jax.Array, z: jax.Array) -> jax.Array:
    return mean(z if w is None else w.astype(z.dtype) * z, weight, axes)
