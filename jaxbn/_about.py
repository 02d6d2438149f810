"""Mean and variance about a guess: one pass if the guess is good, otherwise more passes about better guesses.

    d = (x − guess) / unit      offset = Σwd / W      square = Σw|d|² / W
    mean = guess + offset · unit      var = (square − |offset|²) · unit²

`x − guess` does not round where it matters: nearby floating-point numbers subtract exactly. The two sums round, with
an error of δ times `square` = var + |offset|², so the relative error of var is at most about δ (1 + |offset|²/var). A
guess is good if |offset|² ≤ var + ε. If not, the guess moves to the mean and the sums are taken again. Each pass
brings the guess nearer by a factor of about 10⁷, so one or two passes are enough. The unit is 1, unless squares leave
the range of the type. See docs/math.md.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._axes import expand, is_known, size
from jaxbn._copies import apart, widened
from jaxbn._one_pass import Cut, both_summed, cut
from jaxbn._sample import remedian, sample
from jaxbn._sum import abs2, averaged, summed
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


class _Guess(NamedTuple):
    """A guess, and the unit of distances from it: a power of two, so multiplications by 1/unit do not round."""

    middle: jax.Array  # guess / unit
    per_unit: jax.Array  # 1 / unit


class _Sums(NamedTuple):
    """The sums of one pass, with d = (x − guess) / unit."""

    offsets: jax.Array  # Σwd
    squares: jax.Array  # Σw|d|²


class _Search(NamedTuple):
    """The search for a good guess."""

    passes: jax.Array
    guess: _Guess
    sums: _Sums  # about the guess, except where it is poor
    poor: jax.Array  # where the sums have to be taken about the guess


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
    branches: dict[str, Callable] = {"cuda": on_gpu, "rocm": on_gpu, "default": partial(_searched, axes)}
    return jax.lax.platform_dependent(entries, weight, guess, epsilon, **branches)


def _searched(
    axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array
) -> Centred:
    """As many passes as the data need: one if the guess is good."""

    def goes_on(search: _Search) -> jax.Array:
        return jnp.any(search.poor)

    def step(search: _Search) -> _Search:
        # Without the barrier, the compiler moves everything that depends on x alone in front of the loop, where it is
        # computed at every step, needed or not.
        own, guess = jax.lax.optimization_barrier((entries, search.guess))
        again = _sums(axes, own, *guess)
        sums = jax.tree.map(partial(jnp.where, search.poor), again, search.sums)  # no channel depends on another
        better, poor = _better(guess, sums, weight, epsilon, search.poor & (search.passes < PASSES - 1))
        return _Search(search.passes + 1, better, sums, poor)

    sums = _sums(axes, entries, guess)
    better, poor = _better(_in_unit_1(guess), sums, weight, epsilon)
    first = _Search(jnp.asarray(1), better, sums, poor)
    # The condition is that of the loop. With it, a TPU keeps more of what is outside the loop on the chip.
    search = jax.lax.cond(jnp.any(poor), partial(jax.lax.while_loop, goes_on, step), lambda first: first, first)
    # Without the barrier, a TPU computes the vectors again in each kernel, and writes more in front of a pooling.
    return jax.lax.optimization_barrier(_centred(search.guess, search.sums, weight))


def _twice(axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array) -> Centred:
    """Two passes, the second about the mean. The barrier fixes the mean, whose last bits depend on who computes it."""
    better, _ = _better(_in_unit_1(guess), _sums_apart(axes, entries, guess), weight, epsilon)
    better = jax.lax.optimization_barrier(better)
    return _centred(better, _sums_apart(axes, entries, *better), weight)


def _of_sample(
    axes: tuple[int, ...], entries: Entries, weight: jax.Array, guess: jax.Array, epsilon: jax.Array
) -> Centred:
    """One pass, about the median of a sample, in units of the sample."""
    del epsilon
    values = sample(entries.x, axes).astype(guess.dtype)
    guess = remedian(values)
    half = values * 0.5 - expand(guess, (0,)) * 0.5  # does not overflow
    per_unit = 0.5 / power_of_two(jnp.maximum(abs(half.real), abs(half.imag)), (0,))
    per_unit = jnp.maximum(per_unit, jnp.finfo(per_unit.dtype).tiny)
    found = _Guess(_scaled(guess, per_unit), per_unit)
    return _centred(found, _sums_apart(axes, entries, *found), weight)


def _can_sample(axes: tuple[int, ...], entries: Entries) -> bool:
    known = is_known(size(entries.x.shape, axes))
    return bool(axes) and known and entries.mask is None and not any(jax.typeof(entries.x).sharding.spec)


def _in_unit_1(guess: jax.Array) -> _Guess:
    return _Guess(guess, jnp.ones_like(guess.real))


def _sums(axes: tuple[int, ...], entries: Entries, middle: jax.Array, per_unit: jax.Array | None = None) -> _Sums:
    """The sums about a guess; without `per_unit`, in the unit 1. On a CPU, both in one pass if x can be cut.

    A narrower x would be converted for each sum, which takes longer than a pass. With a mask it is converted anyway.
    """
    by = cut(entries.x, axes) if entries.x.dtype == middle.dtype or entries.mask is not None else None
    if by is None:
        return _sums_apart(axes, entries, middle, per_unit)
    together, separate = partial(_sums_together, axes, by), partial(_sums_apart, axes)
    return jax.lax.platform_dependent(entries, middle, per_unit, cpu=together, default=separate)


def _sums_together(
    axes: tuple[int, ...], by: Cut, entries: Entries, middle: jax.Array, per_unit: jax.Array | None
) -> _Sums:
    def terms(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        d, w = _distance(axes, Entries(x, mask, entries.unit), middle, per_unit)
        return _weighted(d, w), _weighted(abs2(d), w)

    return _Sums(*both_summed(terms, (entries.x, entries.mask), axes, by))


def _sums_apart(axes: tuple[int, ...], entries: Entries, middle: jax.Array, per_unit: jax.Array | None = None) -> _Sums:
    # On a CPU, the compiler must not share anything between the two sums (see _copies).
    (d, w), (same, _) = (_distance(axes, entries, middle, per_unit, copy) for copy in (1, 2))
    return _Sums(*(summed(_weighted(z, w), axes) for z in (d, abs2(same))))


def _weighted(z: jax.Array, w: jax.Array | None) -> jax.Array:
    return z if w is None else w.astype(z.dtype) * z


def _better(
    guess: _Guess, sums: _Sums, weight: jax.Array, epsilon: jax.Array, may_change: jax.Array | bool = True
) -> tuple[_Guess, jax.Array]:
    """The same guess where it is good, otherwise a better one, or another unit; and where something changed."""
    middle, per_unit = guess
    offset, square, var = _moments(sums, weight)
    info, epsilon = jnp.finfo(square.dtype), epsilon * per_unit * per_unit
    moved = middle + offset
    moves = may_change & ~(abs2(offset) <= NEAR * (var + epsilon)) & jnp.isfinite(moved)
    # In the coarse unit no square overflows, in the fine one none vanishes. Next to a guess of 1 or more, numbers are
    # so far apart that no square vanishes in the unit 1.
    coarse, fine = 2.0 ** (-info.maxexp * 3 // 4), 2.0 ** (-info.minexp * 2 // 3)
    finer = jnp.where((per_unit >= 1) & (abs(middle) < per_unit), fine, 1).astype(per_unit.dtype)
    new = jnp.where(square + epsilon < info.tiny / info.eps, finer, per_unit)
    new = jnp.where(may_change, jnp.where(jnp.isfinite(square), new, coarse), per_unit)
    better = _Guess(_scaled(jnp.where(moves, moved, middle), new / per_unit), new)
    return better, (better.middle != middle) | (new != per_unit)


def _centred(guess: _Guess, sums: _Sums, weight: jax.Array) -> Centred:
    """The result in the unit 1; a variance that is too large for the type is the largest number."""
    unit = 1 / guess.per_unit
    offset, _, var = _moments(sums, weight)
    var = jnp.minimum(var * unit * unit, jnp.finfo(unit.dtype).max)
    return Centred(_scaled(guess.middle, unit), _scaled(offset, unit), var)


def _moments(sums: _Sums, weight: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The moments of d: offset, square and variance."""
    offset, square = (averaged(each, weight) for each in sums)
    var = square - abs2(offset)
    return offset, square, jnp.maximum(var, jnp.zeros_like(var))  # of its type, since jax2onnx promotes a Python number


def _scaled(vector: jax.Array, factor: jax.Array) -> jax.Array:
    return vector * factor.astype(vector.dtype)


def _distance(
    axes: tuple[int, ...], entries: Entries, middle: jax.Array, per_unit: jax.Array | None, copy: int = 0
) -> tuple[jax.Array, jax.Array | None]:
    """(x − guess) / unit in the type of the statistics, 0 where x is masked out; and the weights."""
    x, mask, unit = entries
    w, counts = (None, None) if mask is None else in_units(mask, unit, x, axes)
    # For jax_debug_nans, no operation sees masked-out entries.
    x = widened(x if counts is None else jnp.where(counts, x, 0), middle.dtype, copy)
    middle, per_unit = apart((middle, per_unit), copy)
    d = (x if per_unit is None else _scaled(x, expand(per_unit, axes))) - expand(middle, axes)
    return d if counts is None else jnp.where(counts, d, 0), w
