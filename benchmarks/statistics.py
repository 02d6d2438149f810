"""Which form of mean and variance is fast on this machine, and which is exact?

    python -m benchmarks.statistics [--seconds S] [--json FILE] [--markdown]

Forward only, float32, channels last: the forms that other libraries use, those that are shifted by a value among the
data, and the one that jaxbn uses. On CPU the compiler's fast reduction absorbs the elementwise operations in front of
it only where nothing else uses them; the table shows what that costs a form whose two sums share their difference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import harness
from jaxbn._copies import clamped_copy
from jaxbn._moments import batch_moments
from jaxbn._sample import middle

SHAPES = ((128, 26, 26, 32), (256, 32, 32, 64), (4096, 512))
Pair = tuple[jax.Array, jax.Array]
Form = Callable[[jax.Array], Pair]


@dataclass(frozen=True)
class Options:
    """Which form of mean and variance is fast, and which is exact?"""

    seconds: float = 3.0
    """How long to measure each shape."""
    markdown: bool = False
    """Print tables to paste into the documentation."""
    json: Path | None = None
    """Where to save the figures."""


def squares(x: jax.Array) -> Pair:
    """E[x] and E[x²] − E[x]²: Flax and Haiku."""
    mean = x.mean(_rows(x))
    return mean, jnp.square(x).mean(_rows(x)) - jnp.square(mean)


def two_passes(x: jax.Array) -> Pair:
    """The mean, then the mean of (x − mean)²."""
    mean = x.mean(_rows(x))
    return mean, jnp.square(x - mean).mean(_rows(x))


def shared_difference(x: jax.Array) -> Pair:
    """One pass about the first row, whose difference both sums use."""
    shift = x[(0,) * (x.ndim - 1)]
    difference = x - shift
    offset = difference.mean(_rows(x))
    return shift + offset, jnp.square(difference).mean(_rows(x)) - jnp.square(offset)


def own_differences(x: jax.Array) -> Pair:
    """One pass about the first row, each sum with a difference of its own."""
    shift = x[(0,) * (x.ndim - 1)]
    offset = (x - clamped_copy(shift)).mean(_rows(x))
    return shift + offset, jnp.square(x + -shift).mean(_rows(x)) - jnp.square(offset)


def pair_of_sums(x: jax.Array) -> Pair:
    """One reduction of pairs: both sums about the first row at once."""
    shift = x[(0,) * (x.ndim - 1)]
    difference = x - shift

    def add(a: Pair, b: Pair) -> Pair:
        return a[0] + b[0], a[1] + b[1]

    total, square = jax.lax.reduce((difference, jnp.square(difference)), (0.0, 0.0), add, _rows(x))
    count = x.size // x.shape[-1]
    return shift + total / count, square / count - jnp.square(total / count)


def ours(x: jax.Array) -> Pair:
    """jaxbn's form with a good guess: both sums in one pass, and the check."""
    result = batch_moments(x, _rows(x), guess=jnp.zeros(x.shape[-1]))
    return result.mean, result.var


def ours_far(x: jax.Array) -> Pair:
    """The same with a guess that is three deviations off: two passes."""
    result = batch_moments(x, _rows(x), guess=jnp.full(x.shape[-1], 3.0))
    return result.mean, result.var


def sample_alone(x: jax.Array) -> Pair:
    """The median of a sample, which is the guess on a GPU."""
    median = middle(x, _rows(x))
    return median, median


FORMS: dict[str, Form] = {
    "E[x²] − E[x]²": squares,
    "two passes": two_passes,
    "shifted, the difference shared": shared_difference,
    "shifted, two differences": own_differences,
    "shifted, a reduction of pairs": pair_of_sums,
    "jaxbn, the guess is good": ours,
    "jaxbn, the guess is 3 σ off": ours_far,
    "the median of a sample alone": sample_alone,
}


def _rows(x: jax.Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def error(form: Form, x: np.ndarray) -> float:
    """The largest relative error of the variance."""
    exact = x.astype(np.float64).var(tuple(range(x.ndim - 1)))
    return float(np.abs(np.asarray(form(jnp.asarray(x)))[1] / exact - 1).max())


def main(options: Options) -> None:
    """Measure and print."""
    facts = harness.environment()
    harness.show_facts(facts)
    compiled = {name: jax.jit(form) for name, form in FORMS.items()}
    times: dict[str, dict[str, float]] = {name: {} for name in FORMS}  # over the first form's, by shape
    for shape in SHAPES:
        x = jax.random.normal(jax.random.key(0), shape)
        timings = harness.time_side_by_side({n: partial(f, x) for n, f in compiled.items()}, options.seconds)
        for name, timing in timings.items():
            times[name]["×".join(map(str, shape))] = timing.ratio(timings[next(iter(FORMS))])
    far = (1e3 + np.random.default_rng(0).normal(size=SHAPES[0])).astype(np.float32)
    records: list[dict[str, Any]] = [
        {"name": name, "times": times[name], "error": None if name.endswith("alone") else error(form, far)}
        for name, form in compiled.items()
    ]
    columns: Sequence[str] = ["time over the first", *("×".join(map(str, s)) for s in SHAPES), "error at 1000 σ"]
    rows = [
        [
            record["name"],
            *(f"{time:.2f}" for time in record["times"].values()),
            "" if record["error"] is None else f"{record['error']:.1e}",
        ]
        for record in records
    ]
    harness.show_table("Mean and variance, forward", columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
