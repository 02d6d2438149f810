"""Data whose statistics are hard to compute: a generator of channels, by kind.

Each channel has a deviation near 1, so that one ε suits all, except for the kinds that vary the size. An algorithm
that reads only some places of an array, or adds up squares of distant values, is wrong on some of them.
"""

from collections.abc import Callable, Iterator

import numpy as np

from jaxbn._sample import places

Channel = np.ndarray  # of n entries
Kind = Callable[[np.random.Generator, int], Iterator[Channel]]

LEVELS = (0.0, 1.0, 30.0, 1e3, 1e6)  # of a mean, over the deviation


def _unit(channel: Channel) -> Channel:
    """The channel with a deviation of 1, its mean apart; as it is where it is constant."""
    deviation = channel.std()
    return channel / deviation if deviation > 0 else channel


def gaussian(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """Plain data, about means from 0 to a million deviations."""
    for level in LEVELS:
        yield random.normal(size=n) + level


def padding(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """Blocks of zeros in front of data that lie elsewhere, or behind them, of 1 to n − 2 entries."""
    for share in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        block = min(max(1, round(share * n)), max(n - 2, 1))
        for level in (3.0, 1e3):
            for rows in (slice(None, block), slice(n - block, None)):
                channel = random.normal(size=n) + level
                channel[rows] = 0
                yield _unit(channel)


def spikes(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """Outliers of 1 to 10¹⁰ deviations of the others, at each of a few periods."""
    for period in (2, 3, 4, 7, 8, 16, 27, 64):
        for height in (1.0, 30.0, 1e4, 1e10):
            channel = random.normal(size=n)
            channel[random.integers(min(period, n)) :: period] += height * random.choice([-1, 1])
            yield _unit(channel)


def one_outlier(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """A single outlier, first, last, in the middle, or where the median of a sample looks."""
    for place in (0, n - 1, n // 2, *places(n)[:: 27 if n < 1000 else 9]):
        for height in (1e2, 1e6):
            channel = random.normal(size=n) + 2
            channel[place] = height
            yield _unit(channel)


def ordered(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """Sorted data and ramps, up and down, about several means."""
    ramp = np.arange(n) / max(n - 1, 1)
    for level in LEVELS[:4]:
        for channel in (np.sort(random.normal(size=n)), np.sort(random.exponential(size=n) ** 3), ramp, ramp**8):
            yield _unit(channel) + level
            yield _unit(channel[::-1]) - level


def sparse(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """Mostly zeros: 90 to 99.9%."""
    for share in (0.9, 0.99, 0.999):
        for draw in (random.normal, random.exponential):
            yield _unit(np.where(random.random(n) < share, 0, draw(size=n)))
            yield _unit(np.where(random.random(n) < share, 0, draw(size=n) + 100))


def bimodal(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """Two values, or two narrow heaps, of any shares, in any order."""
    for share in (0.0, 0.01, 0.1, 0.3, 0.5):
        count = max(1, round(share * n))
        for width in (0.0, 0.1):
            channel = width * random.normal(size=n)
            channel[:count] += 10
            yield _unit(channel)
            yield _unit(random.permutation(channel)) + 5


def two_values(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """Numbers whose squares all round the same way: a sum, one after the other, drifts."""
    for value in (0.1, 1 / 3, 0.7):
        yield random.choice([-value, value], size=n)
        yield random.choice([-value, value], size=n) + 1e3


def heavy_tails(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """Cauchy, Pareto and lognormal."""
    for channel in (random.standard_cauchy(n), random.pareto(1.1, n), random.lognormal(0, 3, n), random.pareto(0.5, n)):
        yield _unit(channel)
        yield -_unit(channel) + 10


def constant(random: np.random.Generator, n: int) -> Iterator[Channel]:
    """One value, or one and a single other."""
    for value in (0.0, 0.1, 1e-3, -7.3, 1e6):
        yield np.full(n, value)
        channel = np.full(n, value)
        channel[random.integers(n)] += 1 + abs(value) / 3
        yield channel


KINDS: dict[str, Kind] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        gaussian, padding, spikes, one_outlier, ordered, sparse, bimodal, two_values, heavy_tails, constant,
    )
}  # fmt: skip


def channels(kind: str, n: int, seed: int = 0) -> np.ndarray:
    """The channels of a kind, of `n` entries each, side by side as float32."""
    random = np.random.default_rng([seed, n, *kind.encode()])
    return np.stack([channel.astype(np.float32) for channel in KINDS[kind](random, n)], axis=-1)
