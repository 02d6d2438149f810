"""The promised accuracy: float32 input whose mean is far from zero, against float64 on the very same input.

Outputs of unit variance within 2·10⁻⁶, gradients within 2·10⁻⁵ of their largest entry. Where the outputs themselves are
large, their own float32 spacing is, so the bound is relative to the largest output.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxbn import BatchNormParams, BatchNormState, batch_norm

RATIOS = [0, 1, 1e2, 1e3, 1e4, 1e5, 1e6]
SHAPES = {
    "images": ((64, 14, 14, 16), -1),
    "rows": ((256, 40), -1),
    "many rows": ((5000, 8), -1),
    "two rows": ((2, 16), -1),
    "channels first": ((16, 8, 14, 14), 1),
    "two feature axes": ((32, 4, 25, 3), (1, -1)),
}
OUTPUT, GRADIENT = 2e-6, 2e-5


def differentiate(params, x, g, axis, epsilon):
    y, pull = jax.vjp(lambda params, x: batch_norm(params, None, x, True, axis=axis, epsilon=epsilon)[0], params, x)
    return y, *pull(g)


COMPILED = jax.jit(differentiate, static_argnames=("axis", "epsilon"))
PATHS = {"eager": differentiate, "compiled": COMPILED}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def errors(path, x, axis=-1, epsilon=1e-5, place=lambda array: array):
    """The largest errors of y, and of the gradients, each relative to what it may be measured by."""
    x = np.asarray(x, np.float32)
    reduced = oracle.reduced_axes(axis, x.ndim)
    features = tuple(n for a, n in enumerate(x.shape) if a not in reduced)
    params = BatchNormParams(jnp.ones(features), jnp.zeros(features))
    g = np.random.default_rng(7).normal(size=x.shape).astype(np.float32)
    y, g_params, g_x = path(params, place(x), place(g), axis, epsilon)
    y_oracle, _ = oracle.batch_norm(params, None, x, True, axis=axis, epsilon=epsilon)
    exact = oracle.gradients(params, x, g, axis=axis, epsilon=epsilon)

    # With two rows ∂x vanishes up to ε: what is left is measured by the terms that cancel.
    terms = np.abs(g).max() / np.sqrt(oracle.wide(x).var(reduced).max() + epsilon) if x.size == 2 * y.shape[-1] else 0
    return (
        largest(y - y_oracle) / max(1, largest(y_oracle)),
        largest(g_x - exact.x) / max(largest(exact.x), terms),
        largest(g_params.scale - exact.scale) / largest(exact.scale),
        largest(g_params.bias - exact.bias) / max(largest(exact.bias), 1),
    )


def largest(array):
    return np.abs(array).max()


def assert_exact(*arguments, **options):
    y, *gradients = errors(*arguments, **options)
    assert y <= OUTPUT, f"outputs off by {y:.1e}"
    assert max(gradients) <= GRADIENT, f"gradients of x, scale and bias off by {gradients}"


@every_path
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_ratio_of_mean_and_deviation(shape, ratio, path):
    size, axis = SHAPES[shape]
    assert_exact(path, np.random.default_rng(0).normal(ratio, 1, size), axis)


@pytest.mark.parametrize("ratio", [1e2, 1e6])
@pytest.mark.parametrize("shape", ["images", "rows", "many rows", "channels first"])
def test_sharded(shape, ratio):
    size, axis = SHAPES[shape]
    mesh = Mesh(np.array(jax.devices()), ("devices",), axis_types=(AxisType.Auto,))
    share = functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec("devices")))
    assert_exact(COMPILED, np.random.default_rng(0).normal(ratio, 1, size), axis, place=share)


@pytest.mark.parametrize("ratio", [1e2, 1e6])
def test_vmapped(ratio):
    x = np.random.default_rng(0).normal(ratio, [[[1]], [[5]]], (2, 256, 40)).astype(np.float32)
    params = BatchNormParams(jnp.ones(40), jnp.zeros(40))
    y = jax.jit(jax.vmap(lambda x: batch_norm(params, None, x, True)[0]))(x)
    for one, x_one in zip(y, x, strict=True):
        assert largest(one - oracle.batch_norm(params, None, x_one, True)[0]) <= OUTPUT


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("option", ["mask", "weights", "ghost batches"])
@pytest.mark.parametrize("shape", ["images", "rows", "channels first"])
def test_options(shape, option, ratio):
    """Compiled; masked-out entries are not compared."""
    size, axis = SHAPES[shape]
    rng = np.random.default_rng(0)
    x = rng.normal(ratio, 1, size).astype(np.float32)
    mask = {"mask": rng.random(size) < 0.7, "weights": rng.choice([0, 0.5, 1, 3], size).astype(np.float32)}.get(option)
    options = {"axis": axis, "ghost_batch_size": size[0] // 4 if mask is None else None}
    params = BatchNormParams(None, None)
    y, _ = jax.jit(lambda x, mask: batch_norm(params, None, x, True, mask=mask, **options))(x, mask)
    exact, _ = oracle.batch_norm(params, None, x, True, mask=mask, **options)
    assert largest((y - exact)[True if mask is None else mask > 0]) <= OUTPUT * max(1, largest(exact) / 5)


@every_path
def test_second_derivatives_far_from_zero(path):
    """A Hessian-vector product at |mean|/std = 10⁴ equals that of float64 on the same input."""
    rng = np.random.default_rng(0)
    x, v, g = (rng.normal(m, 1, (64, 8)).astype(np.float32) for m in (1e4, 0, 0))

    def product(x, v, g):
        params = BatchNormParams(jnp.ones(8, x.dtype), jnp.zeros(8, x.dtype))
        return jax.jvp(jax.grad(lambda x: jnp.sum(batch_norm(params, None, x, True)[0] * g)), (x,), (v,))[1]

    narrow = (jax.jit(product) if path is COMPILED else product)(x, v, g)
    with jax.enable_x64(True):
        exact = product(*(jnp.asarray(a, jnp.float64) for a in (x, v, g)))
    assert largest(narrow - np.asarray(exact)) <= GRADIENT * largest(exact)


ROWS, IMAGES = (4992, 8), (144, 12, 12, 4)


def spikes(position, size=ROWS):
    """Zeros except for one large entry."""
    x = np.zeros(size)
    x[position] = 1e4
    return x


def noise_with(part, value=1e4, size=IMAGES):
    """Normal noise, in a part of which all entries are outliers."""
    x = np.random.default_rng(0).normal(size=size)
    x[part] += value
    return x


HARD = {
    "lognormal": lambda rng: rng.lognormal(sigma=2, size=ROWS),
    "Student t": lambda rng: rng.standard_t(3, size=ROWS),
    "Cauchy": lambda rng: rng.standard_cauchy(size=ROWS),
    "exponential": lambda rng: rng.exponential(size=ROWS),
    "exponential, far from zero": lambda rng: 1e4 - rng.exponential(size=ROWS),
    "two clusters": lambda rng: rng.choice([-1e3, 1e3], size=ROWS) + rng.normal(size=ROWS),
    "two values": lambda rng: (rng.random(ROWS) < 3e-3).astype(float),
    "mostly zeros": lambda rng: np.where(rng.random(ROWS) < 1e-3, 100 * rng.normal(size=ROWS), 0),
    "mostly 1000": lambda rng: np.where(rng.random(ROWS) < 1e-3, 100 * rng.normal(size=ROWS), 0) + 1e3,
    "a spike in front": lambda _: spikes(0),
    "a spike at the end": lambda _: spikes(-1),
    "a spike in the middle": lambda _: spikes(ROWS[0] // 2),
    "a negative spike in front": lambda _: -spikes(0),
    "sorted": lambda rng: np.sort(rng.normal(size=ROWS), 0),
    "sorted, heavy tails": lambda rng: np.sort(rng.standard_t(3, size=ROWS), 0),
    "ramp": lambda _: np.linspace(1e3, 1e3 + 1, ROWS[0])[:, None] * np.ones(8),
    "a hot corner of every image": lambda _: noise_with(np.s_[:, 0, 0]),
    "a hot centre of every image": lambda _: noise_with(np.s_[:, 6, 6]),
    "a hot row of every image": lambda _: noise_with(np.s_[:, 0]),
    "one bright image": lambda _: noise_with(np.s_[77]),
    "one dark image": lambda _: noise_with(np.s_[77], -1e4),
    "the first image bright": lambda _: noise_with(np.s_[0]),
    "a run of bright rows": lambda _: noise_with(np.s_[1000:1064], size=ROWS),
    "a run of dark rows": lambda _: noise_with(np.s_[1000:1064], -1e4, size=ROWS),
    "every 64th row bright": lambda _: noise_with(np.s_[::64], size=ROWS),
    "large": lambda rng: 1e10 * rng.normal(size=ROWS),
    "large, far from zero": lambda rng: 1e10 * rng.normal(1e3, 1, size=ROWS),
}


@every_path
@pytest.mark.parametrize("data", HARD)
def test_hard_data(data, path):
    assert_exact(path, HARD[data](np.random.default_rng(0)))


@every_path
def test_any_two_outliers(path):
    """In each channel another pair of the 20 rows is far from the rest."""
    pairs = np.triu_indices(20, 1)
    for sign in (1, -1):
        x = np.random.default_rng(0).normal(size=(20, len(pairs[0])))
        for rows in pairs:
            x[rows, np.arange(len(rows))] += sign * 1e6
        assert_exact(path, x)


@every_path
def test_values_whose_squares_barely_fit_into_float32(path):
    """The sum of their squares is 10³⁸; the gradients, of 10⁻¹⁸, are as exact as any."""
    assert_exact(path, 6e17 * np.random.default_rng(0).normal(size=(256, 4)))


@every_path
@pytest.mark.parametrize("value", [0.0, 1e-40, 1e-30, 1e-3, 0.1, 1e8, -1e8, 3e38])
def test_constant_channels_give_the_bias(value, path):
    """Exactly, where the value is far from the guess, 0, beside √ε: the guess moves to it. Otherwise as promised."""
    x = np.full((64, 4), value, np.float32)
    bias = jnp.asarray([0.3, -0.3, 0.0, 1e-3])
    params = BatchNormParams(jnp.full(4, 2.0), bias)
    g = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    y, g_params, g_x = path(params, x, g, -1, 1e-5)
    exact = oracle.gradients(params, x, g)
    size = 0 if value == 0 or abs(value) > 0.1 else 1
    assert_close(y, np.broadcast_to(bias, y.shape), size=size)
    assert_close(g_params.scale, np.zeros(4), size=size)
    np.testing.assert_allclose(g_x, exact.x, atol=GRADIENT * largest(exact.x))


@every_path
def test_denormal_numbers_are_as_good_as_zeros(path):
    """Values far below √ε may be flushed to zero: the difference is invisible in float32 beside an output of 1."""
    x = 1e-39 * np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    params = BatchNormParams(jnp.ones(4), jnp.zeros(4))
    y, g_params, g_x = path(params, x, np.ones_like(x), -1, 1e-5)
    assert largest(y) < 1e-35
    assert all(np.isfinite(a).all() for a in (*g_params, g_x))


@pytest.mark.parametrize("train", [True, False])
def test_running_statistics_keep_their_digits(train):
    """Even far from zero, the new state is that of float64, rounded, and evaluation centres exactly."""
    x = np.random.default_rng(0).normal(1e6, 1, (256, 8)).astype(np.float32)
    params = BatchNormParams(None, None)
    state = BatchNormState(jnp.full(8, 1e6 - 0.5), jnp.full(8, 1.5), jnp.asarray(3))
    y, new = batch_norm(params, state, x, train, momentum=0.9)
    y_oracle, new_oracle = oracle.batch_norm(params, state, x, train, momentum=0.9)
    assert largest(y - y_oracle) <= OUTPUT
    assert_close(new.mean, new_oracle.mean)
    assert_close(new.var, new_oracle.var, size=0)
