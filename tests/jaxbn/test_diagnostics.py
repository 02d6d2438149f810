"""Each figure by its formula."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close

from jaxbn import BatchNormParams, BatchNormState, diagnostics, init

EPSILON = 0.1


def example(shape=(16, 4), seed=0, axis=-1):
    rng = np.random.default_rng(seed)
    features = tuple(shape[a] for a in ([axis] if isinstance(axis, int) else axis))
    x = jnp.asarray(rng.normal(1, 2, shape), jnp.float32)
    params = BatchNormParams(*(jnp.asarray(rng.normal(size=features), jnp.float32) for _ in range(2)))
    mean, var = rng.normal(size=features), rng.uniform(0.5, 2, features)
    return params, BatchNormState(jnp.asarray(mean, jnp.float32), jnp.asarray(var, jnp.float32), jnp.int32(1)), x


def expected(params, state, x, weights, axis):
    reduced = oracle.reduced_axes(axis, x.ndim)
    batch = oracle.statistics(oracle.wide(x), weights, reduced)
    mean, var, total = (np.squeeze(v, reduced) for v in (batch.mean, batch.var, batch.total))
    running = oracle.wide(state.var) + EPSILON
    return {
        "mean_gap": (mean - oracle.wide(state.mean)) / np.sqrt(running),
        "variance_ratio": (var + EPSILON) / running,
        "output_deviation": np.abs(oracle.wide(params.scale)) * np.sqrt(var / (var + EPSILON)),
        "effective_size": total**2 / (weights**2).sum(reduced),
    }


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("shape", "axis"), [((16, 4), -1), ((8, 3, 5), 1), ((6, 2, 3, 4), (1, 3))])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "weights"])
def test_the_formulas(shape, axis, masked, jitted):
    params, state, x = example(shape, axis=axis)
    weights = np.random.default_rng(1).choice([0, 0.5, 1, 3], size=shape) if masked else np.ones(shape)
    mask = jnp.asarray(weights, jnp.float32) if masked else None
    function = partial(diagnostics, axis=axis, epsilon=EPSILON)
    report = (jax.jit(function) if jitted else function)(params, state, x, mask=mask)
    for name, value in expected(params, state, x, weights, axis).items():
        assert_close(getattr(report, name), value, condition=2, message=name)
    assert not report.dead.any()


def test_the_gap_is_exact_at_large_means():
    params, state, x = example()
    x, state = x + 2.0**20, state._replace(mean=state.mean + 2.0**20)
    gap = diagnostics(params, state, x, epsilon=EPSILON).mean_gap
    exact = expected(params, state, x, np.ones(x.shape), -1)["mean_gap"]
    assert_close(gap, exact)


def test_dead_channels():
    """Channels that are dead by the scale, by the variance or by both; the first is alive."""
    params = BatchNormParams(jnp.asarray([1.0, 1e-4, 1.0, 0.0]), None)
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    x[:, 2:] = [5.0, 0.0]
    np.testing.assert_array_equal(diagnostics(params, init(4)[1], x).dead, [False, True, True, True])
    np.testing.assert_array_equal(diagnostics(params, init(4)[1], x, epsilon=0.0).dead, [False, True, True, True])
    np.testing.assert_array_equal(diagnostics(params, init(4)[1], x, dead_below=1e-5).dead, [False, False, True, True])
    no_scale = diagnostics(BatchNormParams(None, None), init(4)[1], x)
    np.testing.assert_array_equal(no_scale.dead, [False, False, True, True])


def test_masked_is_filtered():
    """Masked-out entries may hold anything, including NaN; the effective size of a bool mask is its count."""
    params, state, x = example()
    rows = np.arange(16) % 3 > 0
    filtered = diagnostics(params, state, x[rows])
    masked = diagnostics(params, state, jnp.where(rows[:, None], x, jnp.nan), mask=rows[:, None])
    for a, b in zip(masked, filtered, strict=True):
        assert_close(a, b)
    np.testing.assert_array_equal(masked.effective_size, np.full(4, rows.sum()))


def test_a_channel_without_weight_says_nothing():
    params, state, x = example()
    mask = np.broadcast_to(np.arange(4) > 0, x.shape)
    report = diagnostics(params, state, x, mask=mask)
    first = [float(np.asarray(v[0])) for v in report]
    assert first == [0, 1, 0, False, 0]
    assert all(bool(jnp.isfinite(v).all()) for v in report)


def test_half_precision_and_complex():
    params, state, x = example()
    report = diagnostics(params, state, x.astype(jnp.bfloat16))
    assert [v.dtype.name for v in report] == ["float32", "float32", "float32", "bool", "float32"]
    z = jax.lax.complex(x, 2 * x)
    report = diagnostics(params, state, z, epsilon=EPSILON)
    values = oracle.wide(z)
    ratio = (values.var(0) + EPSILON) / (oracle.wide(state.var) + EPSILON)
    assert_close(report.variance_ratio, ratio, size=0)
    gap = (values.mean(0) - oracle.wide(state.mean)) / np.sqrt(oracle.wide(state.var) + EPSILON)
    assert_close(report.mean_gap, gap)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"state": None}, TypeError, r"state must be a jaxbn\.BatchNormState.*got None"),
        ({"x": np.ones((1, 4), np.float32)}, ValueError, "more than one value per channel"),
        ({"x": np.ones((3, 5), np.float32)}, ValueError, "must have shape"),
        ({"x": np.ones((3, 4), np.int32)}, TypeError, "x must be floating or complex"),
        ({"epsilon": -1.0}, ValueError, "epsilon must be finite"),
        ({"mask": np.ones(3, bool)}, ValueError, "mask must be broadcastable"),
    ],
)
def test_what_is_wrong_is_said(changed, error, message):
    params, state, x = example()
    with pytest.raises(error, match=message):
        diagnostics(**({"params": params, "state": state, "x": x} | changed))
