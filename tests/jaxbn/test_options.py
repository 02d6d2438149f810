"""The promises of the options beyond the formulas tested by `cases.py`: limits, equivalences, masked-out entries."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close

from jaxbn import (
    BatchNormParams,
    BatchNormState,
    BatchRenorm,
    batch_norm,
    batch_renorm_ramp,
    cumulative,
    debiased,
    init,
)
from jaxbn._normalize import ACTIVATIONS

X = np.random.default_rng(0).normal([1.0, -2.0, 30.0], [1.0, 3.0, 0.5], (24, 3)).astype(np.float32)
G = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
MASK = np.random.default_rng(2).random((24, 1)) < 0.7
PARAMS = BatchNormParams(jnp.asarray([1.0, 0.5, 2.0]), jnp.asarray([0.0, 1.0, -1.0]))
STATE = BatchNormState(jnp.asarray([0.0, 1.0, 25.0]), jnp.asarray([1.0, 0.5, 2.0]), jnp.asarray(4))


@jax.jit
def outputs_and_gradients(x, mask, g):
    def loss(params, x):
        y, state = batch_norm(params, STATE, x, True, mask=mask)
        return jnp.sum(y * g), (y, state)

    (_, outputs), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(PARAMS, x)
    return outputs, gradients


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf, 3e38, 0.0])
def test_masked_equals_filtered_whatever_is_hidden(hidden):
    """Outputs, state and gradients. Masked-out entries have no influence, and finite ones have a finite output."""
    seen = np.where(MASK, X, np.float32(hidden))
    (y, state), (g_params, g_x) = outputs_and_gradients(seen, MASK, G * MASK)
    valid = MASK[:, 0]
    (y_filtered, state_filtered), (g_params_filtered, g_x_filtered) = outputs_and_gradients(X[valid], None, G[valid])
    assert_close((y[valid], state), (y_filtered, state_filtered))
    assert_close((g_params, g_x[valid]), (g_params_filtered, g_x_filtered), condition=10)
    np.testing.assert_array_equal(g_x[~valid], 0)
    assert not np.isnan(y).any()


def test_weights_are_repetitions():
    weights = np.random.default_rng(3).choice([0, 1, 2, 3], 24)
    (y, state), (g_params, g_x) = outputs_and_gradients(X, weights[:, None].astype(np.float32), G * weights[:, None])
    repeated = np.repeat(np.arange(24), weights)
    (y_repeated, state_repeated), (g_params_repeated, _) = outputs_and_gradients(X[repeated], None, G[repeated])
    assert_close((y[repeated], state), (y_repeated, state_repeated))
    assert_close(g_params, g_params_repeated, condition=10)
    np.testing.assert_array_equal(g_x[weights == 0], 0)


@pytest.mark.parametrize("mask", [np.ones((1, 1), bool), np.ones(3, np.int32), np.float32(1), np.full((24, 1), 0.25)])
def test_equal_weights_are_no_mask(mask):
    mask = mask.astype(np.float32) if mask.dtype == np.float64 else mask
    assert_close(batch_norm(PARAMS, STATE, X, True, mask=mask), batch_norm(PARAMS, STATE, X, True))


def test_a_channel_without_weight_keeps_its_state():
    mask = np.asarray([True, False, True])
    y, state = batch_norm(PARAMS, STATE, X, True, mask=mask, momentum=0.5)
    _, whole = batch_norm(PARAMS, STATE, X, True, momentum=0.5)
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(state.mean[1], STATE.mean[1])
    np.testing.assert_array_equal(state.var[1], STATE.var[1])
    for new, of_whole in ((state.mean, whole.mean), (state.var, whole.var)):
        assert_close(new[::2], of_whole[::2])


@pytest.mark.parametrize("unbiased", [False, True])
def test_one_weighted_row_has_no_variance_and_finite_outputs(unbiased):
    """The number of rows that count is not known while tracing; the unbiased variance of one row is not kept."""
    mask = np.arange(24)[:, None] == 7
    y, state = batch_norm(PARAMS, STATE, X, True, mask=mask, momentum=0.5, unbiased=unbiased)
    assert np.isfinite(y).all()
    assert_close(y[7], PARAMS.bias)
    assert_close(state.mean, (oracle.wide(STATE.mean) + X[7]) / 2)
    assert_close(state.var, STATE.var if unbiased else STATE.var / 2)


def test_no_gradient_flows_to_the_mask():
    gradient = jax.grad(lambda w: jnp.sum(batch_norm(PARAMS, None, X, True, mask=w)[0] * G))(jnp.ones((24, 1)))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("r_max", [1, 1.0, lambda _: 1.0])
def test_renorm_without_room_is_plain(r_max):
    """r_max = 1 and d_max = 0: to the last bit, gradients included."""

    def run(renorm, x):
        return batch_norm(PARAMS, STATE, x, True, renorm=renorm)

    plain, pull_plain = jax.vjp(partial(run, None), X)
    same, pull = jax.vjp(partial(run, BatchRenorm(r_max, 0)), X)
    jax.tree.map(np.testing.assert_array_equal, same, plain)
    assert_close(pull((G, STATE._replace(count=np.zeros((), jax.dtypes.float0)))),
                 pull_plain((G, STATE._replace(count=np.zeros((), jax.dtypes.float0)))))  # fmt: skip


def test_renorm_with_all_room_is_evaluation():
    """r and d undo the batch's statistics: the output is normalised by the running ones. They have no gradient."""
    renorm = BatchRenorm(1e6, 1e6)
    y, _ = batch_norm(PARAMS, STATE, X, True, renorm=renorm)
    assert_close(y, batch_norm(PARAMS, STATE, X, False)[0], condition=10)

    gradient = jax.grad(lambda x: jnp.sum(batch_norm(PARAMS, STATE, x, True, renorm=renorm)[0] * G))(X)
    r = np.sqrt(oracle.wide(X).var(0) + 1e-5) / np.sqrt(oracle.wide(STATE.var) + 1e-5)
    scaled = PARAMS._replace(scale=jnp.asarray(oracle.wide(PARAMS.scale) * r, jnp.float32))
    assert_close(gradient, oracle.gradients(scaled, X, G).x, condition=10)
    of_state = jax.grad(lambda m: jnp.sum(batch_norm(PARAMS, STATE._replace(mean=m), X, True, renorm=renorm)[0] * G))
    np.testing.assert_array_equal(of_state(STATE.mean), 0)


def test_the_papers_ramp():
    ramp: Any = batch_renorm_ramp()
    counts = [0, 5_000, 22_500, 25_000, 40_000, 160_000]
    bounds = [(oracle.at(ramp.r_max, t), oracle.at(ramp.d_max, t)) for t in counts]
    assert_close(bounds, [(1, 0), (1, 0), (2, 4.375), (1 + 8 / 7, 5), (3, 5), (3, 5)], dtype="float32")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize(
    ("schedule", "weight"), [(cumulative(), 1.0), (debiased(0.9), 0.9), (debiased(0.0), 0.0)], ids=["1/t", "0.9", "0"]
)
def test_schedules_forget_the_initial_state(schedule, weight, steps):
    """Batch i of n has the share weightⁿ⁻ⁱ in the average; one program serves all counts."""
    batches = jnp.asarray(np.random.default_rng(steps).normal(1, 2, (steps, 8, 3)), jnp.float32)
    params, state = init(3)
    state, _ = jax.lax.scan(lambda s, x: (batch_norm(params, s, x, True, momentum=schedule)[1], None), state, batches)
    share = weight ** np.arange(steps - 1, -1, -1.0)
    assert_close(state.mean, np.average(oracle.wide(batches).mean(1), 0, share))
    assert_close(state.var, np.average(oracle.wide(batches).var(1), 0, share), size=0)
    assert state.count == steps
    assert state.mean.dtype == state.var.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", [cumulative(), debiased(0.9), lambda count: 0.5 + 0 * count])
def test_evaluation_before_any_update_does_not_ask_the_schedule(schedule):
    y, _ = batch_norm(*init(3), X, False, momentum=schedule)
    np.testing.assert_array_equal(y, batch_norm(*init(3), X, False)[0])


def test_ghost_batches_are_separate_batches():
    """Outputs to the accuracy of float32; a single group of all rows equals no groups."""
    y, state = batch_norm(PARAMS, STATE, X, True, ghost_batch_size=6, momentum=0.0)
    groups = [batch_norm(PARAMS, STATE, rows, True, momentum=0.0) for rows in np.split(X, 4)]
    assert_close(y, np.concatenate([part for part, _ in groups]), condition=5)
    assert_close(state.mean, np.mean([oracle.wide(s.mean) for _, s in groups], 0))
    assert_close(state.var, np.mean([oracle.wide(s.var) for _, s in groups], 0))
    assert_close(
        batch_norm(PARAMS, STATE, X, True, ghost_batch_size=24), batch_norm(PARAMS, STATE, X, True), condition=5
    )


def test_evaluation_ignores_ghost_batches_and_renorm():
    plain, _ = batch_norm(PARAMS, STATE, X, False)
    for rows in (6, len(X) + 1):  # evaluation has batches of any size: nothing need be divided
        other, same = batch_norm(PARAMS, STATE, X, False, ghost_batch_size=rows, renorm=BatchRenorm(3, 5))
        np.testing.assert_array_equal(other, plain)
        assert same is STATE


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
@pytest.mark.parametrize("train", [True, False])
def test_activations(name, train):
    """In value and gradient, a fused activation equals one applied afterwards."""
    residual = jnp.asarray(G)
    y, _ = batch_norm(PARAMS, STATE, X, train, activation=name, residual=residual)
    assert_close(y, oracle.batch_norm(PARAMS, STATE, X, train, activation=name, residual=residual)[0], condition=5)

    def loss(fused, x, residual):
        if fused:
            return jnp.sum(batch_norm(PARAMS, STATE, x, train, activation=name, residual=residual)[0] * G)
        z = batch_norm(PARAMS, STATE, x, train)[0] + residual
        return jnp.sum(getattr(jax.nn, name)(z) * G)

    fused, apart = (jax.jit(jax.grad(partial(loss, flag), (0, 1)))(X, residual) for flag in (True, False))
    assert_close(fused, apart, condition=20)


IMAGES = np.random.default_rng(4).normal([5.0, -2.0], [1.0, 3.0], (4, 5, 6, 2)).astype(np.float32)
SIGNED = BatchNormParams(jnp.asarray([1.5, -0.5]), jnp.asarray([0.1, 0.3]))
BY_FLAX = partial(nn.max_pool, window_shape=(3, 2), strides=(2, 2), padding=((1, 1), (0, 0)))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS, jax.nn.relu, jnp.square])
def test_pooling_first_equals_pooling_last(activation, train):
    """To the bit: the same entries go through the same operations; windows may overlap, and have padding."""
    _, state = init(2)
    options: Any = {"activation": activation}
    y, new = batch_norm(SIGNED, state, IMAGES, train, max_pool=BY_FLAX, **options)
    whole, new_whole = batch_norm(SIGNED, state, IMAGES, train, **options)
    np.testing.assert_array_equal(y, BY_FLAX(whole))
    jax.tree.map(np.testing.assert_array_equal, new, new_whole)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_pooled_gradients_are_those_of_pooling_last(activation):
    """Of input, scale and bias, with Flax's pooling, whose derivative is a scatter."""
    g = np.random.default_rng(5).normal(size=(4, 3, 3, 2)).astype(np.float32)

    def loss(first, params, x):
        y = (
            batch_norm(params, None, x, True, activation=activation, max_pool=BY_FLAX)[0]
            if first
            else BY_FLAX(batch_norm(params, None, x, True, activation=activation)[0])
        )
        return jnp.sum(y * g)

    first, last = (jax.jit(jax.grad(partial(loss, f), (0, 1)))(SIGNED, IMAGES) for f in (True, False))
    assert_close(first, last, condition=10)


def test_pooling_sees_nothing_that_a_mask_hides():
    mask = np.arange(4).reshape(4, 1, 1, 1) < 3
    hidden = np.where(mask, IMAGES, np.nan)
    y, _ = batch_norm(SIGNED, None, hidden, True, mask=mask, max_pool=BY_FLAX)
    np.testing.assert_array_equal(y[:3], batch_norm(SIGNED, None, IMAGES, True, mask=mask, max_pool=BY_FLAX)[0][:3])
    assert_close(y[3], np.broadcast_to(y[3, :1, :1], y[3].shape))  # the shift, in every window


def test_pooling_passes_nan_on():
    x = IMAGES.copy()
    x[0, 0, 0, 0] = np.nan
    y, _ = batch_norm(SIGNED, init(2)[1], x, False, activation="relu", max_pool=BY_FLAX)
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isnan(y).sum() == 1
