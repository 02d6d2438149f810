"""No needless NaN: constant channels, channels without weight, masked-out entries."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import pairs_along
from closeness import assert_close

import jaxbn
from jaxbn import BatchNormParams, BatchRenorm, batch_norm, fold, init

PARAMS = BatchNormParams(jnp.asarray([2.0, 0.5, -1.0]), jnp.asarray([0.0, 1.0, -1.0]))
TINY = [0.0, 1e-60, 1e-40]


def data(seed: int = 0, shape: tuple[int, ...] = (8, 4, 3)) -> np.ndarray:
    """The middle channel is constant."""
    x = np.random.default_rng(seed).normal(3, 2, shape).astype(np.float32)
    x[..., 1] = 4.0
    return x


def cubes(x, mask=None, **options):
    y, state = batch_norm(PARAMS, init(3)[1], x, True, mask=mask, **options)
    return jnp.sum(jnp.where(True if mask is None else mask, y, 0) ** 3), (y, state)


@pytest.mark.parametrize("epsilon", TINY)
@pytest.mark.parametrize("options", [{}, {"ghost_batch_size": 4}, {"renorm": BatchRenorm(3.0, 5.0)}], ids=str)
def test_a_constant_channel_gives_the_bias_whatever_epsilon_is(epsilon, options):
    gradient, (y, state) = jax.jit(jax.grad(partial(cubes, epsilon=epsilon, **options), has_aux=True))(data())
    assert np.isfinite(gradient).all()
    assert np.isfinite(y).all()
    if "renorm" not in options:
        np.testing.assert_array_equal(y[..., 1], 1.0)
    assert_close(state.var[1], np.float32(0.99))


@pytest.mark.parametrize("epsilon", TINY)
def test_a_batch_without_weight_has_finite_outputs(epsilon):
    mask = np.zeros((8, 1, 1), bool)
    _, pull = jax.vjp(lambda x: batch_norm(PARAMS, init(3)[1], x, True, mask=mask, epsilon=epsilon)[0], data())
    y, state = batch_norm(PARAMS, init(3)[1], data(), True, mask=mask, epsilon=epsilon)
    assert np.isfinite(y).all()
    assert np.isfinite(pull(jnp.ones_like(y))[0]).all()
    jax.tree.map(np.testing.assert_array_equal, state, init(3)[1])


@pytest.mark.parametrize("epsilon", [1e-40, 1e-60])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_epsilon_below_the_smallest_normal_number_is_what_it_is(epsilon, wrap):
    """With a running variance of 0, the factor is 1/√ε, in evaluation and folded."""
    state = init(3)[1]._replace(var=jnp.zeros(3))
    x = jnp.full((2, 3), 1e-20, jnp.float32)
    expected = oracle.batch_norm(PARAMS, state, x, False, epsilon=epsilon)[0]
    assert_close(wrap(lambda x: batch_norm(PARAMS, state, x, False, epsilon=epsilon)[0])(x), expected)
    kernel, bias = wrap(lambda: fold(PARAMS, state, jnp.eye(3), epsilon=epsilon))()
    assert_close(jnp.diag(kernel), oracle.wide(PARAMS.scale) / np.sqrt(epsilon))
    assert_close(bias, PARAMS.bias)


def test_evaluation_without_variance_and_epsilon_gives_the_bias():
    """So does the folded layer, and diagnostics compare with it."""
    state = init(3)[1]._replace(var=jnp.zeros(3))
    x = jnp.asarray(data()[:, 0])
    y, _ = batch_norm(PARAMS, state, x, False, epsilon=0.0)
    np.testing.assert_array_equal(y, np.broadcast_to(np.asarray(PARAMS.bias), y.shape))
    kernel, bias = fold(PARAMS, state, jnp.eye(3), epsilon=0.0)
    np.testing.assert_array_equal(kernel, 0)
    np.testing.assert_array_equal(bias, PARAMS.bias)
    report = jaxbn.diagnostics(PARAMS, state._replace(mean=jnp.full(3, 4.0)), x, epsilon=0.0)
    assert (report.mean_gap[1], report.variance_ratio[1], report.output_deviation[1]) == (0, 1, 0)


@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_residual_that_a_mask_hides_has_no_influence(value, activation):
    x, mask = data(), np.arange(8)[:, None, None] < 5
    shown, hidden = (np.where(mask, data(1), np.float32(fill)) for fill in (0, value))

    def run(residual):
        def loss(x, residual):
            total, (y, state) = cubes(x, mask, residual=residual, activation=activation)
            return total, (jnp.where(mask, y, 0), state)

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, residual)

    (_, expected), gradients = run(shown)
    (_, actual), (of_x, of_residual) = run(hidden)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    jax.tree.map(np.testing.assert_array_equal, (of_x, of_residual), gradients)
    np.testing.assert_array_equal(np.where(mask, 0, of_residual), 0)


SPOILT: dict[str, dict[str, Any]] = {
    "rows": {},
    "weights": {"mask": (np.arange(8)[:, None, None] < 5).astype(np.float32)},
    "residual": {"residual": None, "activation": "silu"},
    "renorm": {"renorm": BatchRenorm(3.0, 5.0), "unbiased": True},
    "pooling first": {"max_pool": pairs_along(1), "activation": "relu"},
    "half precision": {"dtype": jnp.bfloat16},
    "nothing": {"mask": np.zeros((8, 1, 1), bool)},
    "nothing without epsilon": {"mask": np.zeros((8, 1, 1), bool), "epsilon": 0.0},
}


@pytest.mark.parametrize(
    ("debug", "compiled", "name"),
    [
        *((jax.debug_nans, False, name) for name in SPOILT),
        *((jax.debug_infs, False, name) for name in SPOILT if "nothing" in name),
        *((jax.debug_nans, True, name) for name in ("residual", "half precision")),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_what_a_mask_hides_alarms_nobody(name, debug, compiled):
    """JAX's NaN checks look at every intermediate value of eager code; none may fail, since the results are right."""
    rows = np.arange(8)[:, None, None] < 5
    options = {"mask": rows, **SPOILT[name]}
    hidden = jnp.asarray(np.where(rows, data(), np.nan), options.get("dtype", jnp.float32))
    arrays = {"mask": jnp.asarray(options.pop("mask"))}
    if "residual" in options:
        options |= {"residual": None}
        arrays["residual"] = hidden
    options = {key: value for key, value in options.items() if value is not None}
    state = init(3)[1]

    def loss(params, x, arrays):
        y, new = batch_norm(params, state, x, True, **options, **arrays)
        seen = jnp.where(rows, y, 0).astype(jnp.float32)
        return jnp.sum(seen * seen) + jnp.sum(new.mean), new

    run = jax.value_and_grad(loss, (0, 1), has_aux=True)
    with debug(True):
        outputs = jax.block_until_ready((jax.jit(run) if compiled else run)(PARAMS, hidden, arrays))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs))


def test_pooling_first_skips_an_infinity_that_no_scale_lets_through():
    """0 · ∞ is NaN where pooling comes last; first, an entry is picked, and -inf is never the greatest."""
    x = jnp.asarray([[[-jnp.inf], [1.0]]])
    params = BatchNormParams(jnp.zeros(1), jnp.ones(1))
    y, _ = batch_norm(params, init(1)[1], x, False, max_pool=pairs_along(1))
    np.testing.assert_array_equal(y, 1.0)
    last, _ = batch_norm(params, init(1)[1], x, False)
    assert np.isnan(pairs_along(1)(last)).all()
