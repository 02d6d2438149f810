"""The promised accuracy on any data: |error| ≤ 2·10⁻⁶ · max(1, |y|) against float64 on the very same float32 input.

A generator makes channels of every difficult kind (benchmarks/adversarial.py). Each is computed on every path, and
as on each platform.
"""

import inspect
from collections import deque
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import RELATIVE
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.adversarial import KINDS, channels
from jaxbn import BatchNormParams, BatchNormState, _about, _moments, batch_norm, init
from jaxbn._moments import batch_moments
from jaxbn._sample import middle, places

PARAMS = BatchNormParams(None, None)
EPSILON = 1e-5
SHAPES = [(2,), (3,), (7,), (64,), (8, 6, 4), (6, 2, 6, 12), (5, 16, 6), (63, 65), (32, 7, 7)]


def mesh():
    return Mesh(np.array(jax.devices()), ("shards",), axis_types=(AxisType.Auto,))


@pytest.fixture(params=["elsewhere", "gpu"])
def platform(request, monkeypatch):
    """The platform whose computation the tests run on this one."""
    if request.param == "gpu":
        monkeypatch.setattr(
            jax.lax, "platform_dependent", lambda *arguments, default, cuda=None, **_: (cuda or default)(*arguments)
        )
        monkeypatch.setattr(_moments, "about", inspect.unwrap(_about.about))  # jitted, it remembers


def data(shape, **options):
    """All channels of all kinds, side by side, with an initial state, whose guess is 0."""
    x = np.concatenate([channels(kind, int(np.prod(shape)), **options) for kind in KINDS], -1)
    return x.reshape(*shape, -1), init(x.shape[-1])[1]


def assert_as_promised(y, exact, counted: Any = True):
    error = np.abs(oracle.wide(y) - exact) / np.maximum(1, np.abs(exact))
    worst = np.max(error, axis=tuple(range(error.ndim - 1)), where=counted, initial=0)
    bad = ~(worst <= RELATIVE["float32"])
    assert not bad.any(), f"channels {np.flatnonzero(bad)} are off by {worst[bad]}"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(shape, platform):
    x, state = data(shape)
    y, new = jax.jit(lambda x, state: batch_norm(PARAMS, state, x, True, momentum=0.5))(x, state)
    exact, exact_new = oracle.batch_norm(PARAMS, state, x, True, momentum=0.5)
    assert_as_promised(y, exact)
    assert_as_promised(new.mean, exact_new.mean)
    assert_as_promised(new.var, exact_new.var)


@pytest.mark.parametrize("kind", ["gaussian", "padding", "sparse", "two values"])
def test_four_million_entries(kind, platform):
    n = 4 << 20
    last = deque(KINDS[kind](np.random.default_rng(0), n), maxlen=1).pop()  # one at a time in memory
    x = last.astype(np.float32)[:, None]
    y, _ = jax.jit(lambda x: batch_norm(PARAMS, None, x, True))(x)
    assert_as_promised(y, oracle.batch_norm(PARAMS, None, x, True)[0])


def hidden(x):
    """A mask of entries, and the data with NaN in the masked-out entries."""
    mask = np.random.default_rng(1).random(x.shape) < 0.7
    mask[:2] = True
    return mask, np.where(mask, x, np.nan).astype(np.float32)


@pytest.mark.parametrize("shape", [(64,), (8, 6, 4)], ids=str)
def test_masks_and_weights(shape, platform):
    x, state = data(shape)
    mask, spoilt = hidden(x)
    weights = np.where(mask, np.random.default_rng(2).choice([0.5, 1, 3], x.shape), 0).astype(np.float32)
    norm = jax.jit(lambda x, mask: batch_norm(PARAMS, state, x, True, mask=mask)[0])
    for given in (mask, weights):
        assert_as_promised(norm(spoilt, given), oracle.batch_norm(PARAMS, state, x, True, mask=given)[0], mask)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_shards(masked, platform):
    """A shard may hold no entry that counts."""
    x, state = data((64,))
    mask = np.ones(x.shape, bool)
    if masked:
        mask, x = hidden(x)
        mask[8:24] = False

    def norm(x, mask):
        return batch_norm(PARAMS, state, x, True, axis_name="shards", mask=mask if masked else None)[0]

    y = jax.jit(jax.shard_map(norm, mesh=mesh(), in_specs=P("shards"), out_specs=P("shards")))(x, mask)
    exact, _ = oracle.batch_norm(PARAMS, state, np.where(mask, x, 0), True, mask=mask)
    assert_as_promised(y, exact, mask)


def test_other_paths(platform):
    """Ghost batches, sharded arrays, vmap and scan, each against float64."""
    x, state = data((64,))
    together = oracle.batch_norm(PARAMS, state, x, True)[0]
    groups = np.concatenate([oracle.batch_norm(PARAMS, state, rows, True)[0] for rows in x.reshape(8, 8, -1)])
    norm = jax.jit(lambda x: batch_norm(PARAMS, state, x, True)[0])
    ghost = jax.jit(lambda x: batch_norm(PARAMS, state, x, True, ghost_batch_size=8)[0])

    def one_step(state, x):
        y, state = batch_norm(PARAMS, state, x, True)
        return state, y

    each = jax.jit(jax.vmap(lambda x: batch_norm(PARAMS, state, x, True)[0]))
    step = jax.jit(lambda x: jax.lax.scan(one_step, state, x)[1])
    assert_as_promised(norm(jax.device_put(x, NamedSharding(mesh(), P("shards")))), together)
    assert_as_promised(ghost(x), groups)
    assert_as_promised(each(x.reshape(8, 8, -1)).reshape(x.shape), groups)
    assert_as_promised(step(x.reshape(8, 8, -1)).reshape(x.shape), groups)
    narrow = x.astype(jnp.bfloat16)
    wide = jax.jit(lambda x: batch_norm(PARAMS, state, x, True, dtype=jnp.float32)[0])(narrow)
    assert_as_promised(wide, oracle.batch_norm(PARAMS, state, narrow, True)[0])


@pytest.mark.parametrize("shape", [(64,), (6, 2, 6, 12)], ids=str)
def test_gradients(shape, platform):
    """Relative to the terms that each is the sum of: for ∂x these are γg/σ, γ/σ·mean(g) and γ/σ·x̂·mean(g·x̂)."""
    x, state = data(shape)
    features = x.shape[-1:]
    params = BatchNormParams(jnp.ones(features), jnp.zeros(features))
    g = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    g[..., ::2] = 1 / 3  # sums of equal numbers drift, where they are added one after the other

    @jax.jit
    def pull(x, g):
        return jax.vjp(lambda params, x: batch_norm(params, state, x, True)[0], params, x)[1](g)

    g_params, g_x = pull(x, g)
    exact = oracle.gradients(params, x, g)
    reduced = tuple(range(x.ndim - 1))
    x_hat, _ = oracle.batch_norm(PARAMS, None, x, True)
    terms = np.abs(g).max(reduced) * np.maximum(1, np.abs(x_hat)) / np.sqrt(oracle.wide(x).var(reduced) + EPSILON)
    assert_as_promised(oracle.wide(g_x) / terms, exact.x / terms)
    count = x.size / features[0]
    for actual, wanted in zip(g_params, (exact.scale, exact.bias), strict=True):
        assert_as_promised(actual / count, wanted / count)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_tpu_reads_no_shift_for_the_gradient_of_bfloat16(dtype):
    shift = jnp.arange(3, dtype=jnp.float32)
    origin = jax.jit(partial(_moments._origin, jnp.dtype(dtype))).trace(shift)
    assert ("0.000000e+00" in origin.lower(lowering_platforms=("tpu",)).as_text()) == (dtype == "bfloat16")
    assert "0.000000e+00" not in origin.lower(lowering_platforms=("cpu",)).as_text()


def test_gradients_of_bfloat16_about_zero(monkeypatch):
    """As on a TPU. |μ| times the mean of |x − μ| is at most 2¹¹ σ² for numbers of 8 bits (docs/math.md)."""
    x, _ = data((9, 7, 5))
    x, reduced = x.astype(jnp.bfloat16), (0, 1, 2)
    wide = oracle.wide(x)
    g = np.random.default_rng(3).normal(size=x.shape)
    g[..., ::2] = np.sign(wide - wide.mean(reduced))[..., ::2]  # these have the largest mean(g·x̂)
    g = g.astype(jnp.bfloat16)

    def origin(_, shift):
        used.append(shift)
        return jnp.zeros_like(shift)

    used = []
    monkeypatch.setattr(_moments, "_origin", origin)
    g_x = jax.jit(lambda x, g: jax.vjp(lambda x: batch_norm(PARAMS, None, x, True)[0], x)[1](g)[0])(x, g)
    assert used
    exact = oracle.gradients(PARAMS, x, g).x
    terms = np.abs(oracle.wide(g)).max(reduced) / np.sqrt(wide.var(reduced) + EPSILON)
    within = jnp.finfo(x.dtype).eps / 2 * np.abs(exact) + 2.0**-11 * terms
    bad = ~(np.abs(oracle.wide(g_x) - exact) <= within).all(reduced)
    assert not bad.any(), f"channels {np.flatnonzero(bad)} are off"


def test_without_jit_the_loop_is_compiled_once(monkeypatch):
    """Otherwise each call would take half a second."""
    traced, choose = [], jax.lax.platform_dependent

    def counted(*arguments, **branches):
        traced.extend(each for each in arguments if isinstance(each, _about.Entries))
        return choose(*arguments, **branches)

    monkeypatch.setattr(jax.lax, "platform_dependent", counted)
    x = np.random.default_rng(0).normal(size=(5, 9, 7)).astype(np.float32)  # of a shape of its own
    for _ in range(3):
        batch_norm(PARAMS, init(7)[1], x, True)
    assert len(traced) == 1


def test_a_good_guess_is_kept_and_a_bad_one_is_not():
    """Statistics about the guess itself show that one pass was made."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32) * 2 + 5
    guess = jnp.asarray([5.0, 6.5, 3.5, 8.0])  # 0, 3/4, 3/4 and 3/2 standard deviations off
    found = jax.jit(lambda x, guess: batch_moments(x, (0,), guess=guess))(x, guess)
    np.testing.assert_array_equal(found.shift == guess, [True, True, True, False])
    np.testing.assert_allclose(found.shift[3], 5, atol=2)


@pytest.mark.parametrize("guess", [np.nan, np.inf, -3e38, 1e30])
def test_a_guess_may_be_anything(guess):
    """A state with NaN or infinity does not affect the output in training."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32) * 2 + 5
    state = BatchNormState(jnp.full(4, guess, jnp.float32), jnp.ones(4), jnp.asarray(1))
    y, _ = jax.jit(lambda x, state: batch_norm(PARAMS, state, x, True))(x, state)
    assert_as_promised(y, oracle.batch_norm(PARAMS, None, x, True)[0])


@pytest.mark.parametrize("exponent", [-18, -12, 0, 12, 18])
def test_deviations_of_any_size(exponent):
    """ε is small compared with the variance."""
    assert_scales(exponent, ("gaussian", "padding", "ordered"))


@pytest.mark.parametrize("exponent", [-18, 18])
def test_deviations_of_any_size_that_a_sample_shows(exponent, platform):
    """On a GPU the sample sets the unit of the squares: a constant sample has none."""
    assert_scales(exponent, ("gaussian", "ordered"))


def assert_scales(exponent, kinds):
    x = np.concatenate([channels(kind, 4096) for kind in kinds], -1)
    x = (x * 10.0**exponent).astype(np.float32)
    y, new = jax.jit(lambda x: batch_norm(PARAMS, init(x.shape[-1])[1], x, True, momentum=0, epsilon=0.0))(x)
    assert_as_promised(y, oracle.batch_norm(PARAMS, None, x, True, epsilon=0.0)[0])
    exact = oracle.wide(x).var(0)
    assert_as_promised(new.var / exact, np.ones_like(exact))


@pytest.mark.parametrize("epsilon", [0.0, 1e-5])
def test_means_deviations_and_guesses_from_one_end_of_the_numbers_to_the_other(epsilon):
    """The guess and the unit of the squares may both be wrong at first.

    A variance beyond the numbers of the type is the largest of them, or 0.
    """
    draw, info = np.random.default_rng(0).normal(size=(200, 1)), np.finfo(np.float32)
    middles, deviations = [0, 1e-30, 1e-20, 1, 1e20, 1e37, 2e38], [0, 1e-35, 1e-25, 1e-18, 1, 1e18, 1e25, 1e37]
    x = np.concatenate([m + d * z for m in middles for d in deviations for z in (draw, draw > 0, draw > 2)], -1)
    x = x.astype(np.float32)
    exact_mean, exact_var = oracle.wide(x).mean(0), oracle.wide(x).var(0)
    exact_var = np.where(exact_var < info.tiny, 0, np.minimum(exact_var, info.max))
    size = np.sqrt(np.maximum(exact_var + epsilon, info.tiny))
    of = jax.jit(lambda guess: batch_moments(jnp.asarray(x), (0,), guess=jnp.full(x.shape[1:], guess), epsilon=epsilon))
    for guess in (0.0, 1e-30, 1.0, 1e19, -1e19):
        found = of(guess)
        mean = oracle.wide(found.shift) + oracle.wide(found.offset)
        assert_as_promised(mean / size, exact_mean / size)
        assert_as_promised((oracle.wide(found.var) + epsilon) / size**2, (exact_var + epsilon) / size**2)


def test_beyond_that_nothing_finite_makes_a_state_that_is_not():
    """The variance is at most the largest number."""
    signs = np.random.default_rng(0).choice([-1, 1], (64, 4))
    x = (signs * np.asarray([1e20, 3e38, 1e-30, 0])).astype(np.float32)
    y, new = jax.jit(lambda x: batch_norm(PARAMS, init(4)[1], x, True))(x)
    assert np.isfinite(y).all()
    assert np.isfinite(new.mean).all()
    assert np.isfinite(new.var).all()
    assert (np.sign(y[:, 0]) == signs[:, 0]).all()


def test_a_sample_is_near_the_middle_of_any_data_that_does_not_know_it():
    """Within 3 deviations of the mean for any few outliers, unless they occupy all sampled places."""
    for shape in SHAPES:
        x, _ = data(shape)
        found = jax.jit(lambda x: middle(x, tuple(range(x.ndim - 1))))(x)
        reduced = tuple(range(x.ndim - 1))
        distance = np.abs(found - oracle.wide(x).mean(reduced))
        assert (distance <= 3 * oracle.wide(x).std(reduced) + 1e-6).all()
    looked_at = places(4096)
    assert len(set(looked_at)) == len(looked_at) == 81
    assert np.ptp(np.diff(np.sort(looked_at))) < 100, "evenly spread"
