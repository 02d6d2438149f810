"""The oracle, the reference of all other tests, against arithmetic by hand."""

from types import SimpleNamespace

import numpy as np
import oracle
import pytest
from closeness import assert_close

PLAIN = SimpleNamespace(scale=None, bias=None)
STATE = oracle.State(np.zeros(1), np.ones(1), 0)
X = np.random.default_rng(0).normal(2, 3, (8, 4))
STATE4 = oracle.State(np.asarray([0.3, -1.0, 2.0, 0.0]), np.asarray([0.5, 1.0, 1.5, 2.0]), 3)


def column(*entries):
    return np.asarray(entries, np.float64)[:, None]


def assert_same(left, right):
    assert_close(left[0], right[0])
    for a, b in zip(left[1], right[1], strict=True):
        assert_close(a, b)


def test_training_and_evaluation():
    params = SimpleNamespace(scale=np.asarray([2.0]), bias=np.asarray([5.0]))
    y, state = oracle.batch_norm(params, STATE, column(10, 30), True, momentum=0.75, epsilon=0)
    assert_same((y, state), (column(3, 7), (5, 25.75, 1)))
    y, same = oracle.batch_norm(params, state, column(5, 5 + np.sqrt(25.75)), False, epsilon=0)
    assert_close(y, column(5, 7))
    assert same is state
    assert oracle.batch_norm(params, None, column(10, 30), False)[1] is None


def test_unbiased():
    assert oracle.batch_norm(PLAIN, STATE, column(1, 2, 3), True, momentum=0, unbiased=True)[1].var == 1


def test_complex():
    _, state = oracle.batch_norm(PLAIN, STATE, column(1, 3) + 1j * column(0, 4), True, momentum=0)
    assert_close((state.mean, state.var), (np.asarray([2 + 2j]), np.asarray([5.0])))


def test_channels_first():
    y, state = oracle.batch_norm(PLAIN, STATE4, X.T[None], True, axis=1)
    assert_same((y[0].T, state), oracle.batch_norm(PLAIN, STATE4, X, True))


def test_a_weight_of_two_is_the_row_twice():
    weights = np.asarray([2, 1, 0, 1, 1, 3, 1, 1])
    y, state = oracle.batch_norm(PLAIN, STATE4, X, True, mask=weights[:, None], unbiased=True)
    y_repeated, state_repeated = oracle.batch_norm(PLAIN, STATE4, np.repeat(X, weights, 0), True, unbiased=True)
    assert_same((np.repeat(y, weights, 0), state), (y_repeated, state_repeated))


def test_masked_equals_filtered_whatever_is_hidden():
    mask = np.asarray([1, 1, 0, 1, 0, 1, 1, 1], bool)
    hidden = np.where(mask[:, None], X, np.nan)
    y, state = oracle.batch_norm(PLAIN, STATE4, hidden, True, mask=mask[:, None])
    assert_same((y[mask], state), oracle.batch_norm(PLAIN, STATE4, X[mask], True))


def test_a_channel_without_weight_keeps_its_state():
    y, state = oracle.batch_norm(PLAIN, STATE4, X, True, mask=np.asarray([1, 1, 0, 1]))
    assert np.isfinite(y).all()
    assert (state.mean[2], state.var[2]) == (STATE4.mean[2], STATE4.var[2])
    assert_same((y[:, :2], [v[:2] for v in state[:2]]), (y[:, :2], [v[:2] for v in whole_state()[:2]]))


def whole_state():
    return oracle.batch_norm(PLAIN, STATE4, X, True)[1]


def test_shards_are_the_union():
    mask = np.asarray([1, 1, 0, 1, 0, 1, 0, 0], bool)[:, None]
    shards = oracle.batch_norm_shards(
        PLAIN, STATE4, np.split(X, [1, 6]), True, masks=np.split(mask, [1, 6]), residuals=np.split(X, [1, 6])
    )
    whole = oracle.batch_norm(PLAIN, STATE4, X, True, mask=mask, residual=X)
    for _, state in shards:
        assert_same((np.concatenate([y for y, _ in shards]), state), whole)


def test_groups_of_shards_are_apart():
    shards = oracle.batch_norm_shards(PLAIN, STATE4, np.split(X, 4), True, axis_index_groups=[[0, 2], [3, 1]])
    for i, rows in ((0, [0, 1, 4, 5]), (2, [0, 1, 4, 5]), (1, [6, 7, 2, 3]), (3, [6, 7, 2, 3])):
        y, state = oracle.batch_norm(PLAIN, STATE4, X[rows], True)
        assert_same(shards[i], (y[[rows.index(2 * i), rows.index(2 * i) + 1]], state))


def test_ghost_batches():
    y, state = oracle.batch_norm(PLAIN, STATE4, X, True, ghost_batch_size=2, momentum=0, unbiased=True)
    groups = [oracle.batch_norm(PLAIN, STATE4, rows, True, momentum=0, unbiased=True) for rows in np.split(X, 4)]
    means = [np.mean([getattr(group, name) for _, group in groups], 0) for name in ("mean", "var")]
    assert_same((y, state), (np.concatenate([part for part, _ in groups]), (*means, 4)))
    whole = oracle.batch_norm(PLAIN, STATE4, X, True)
    assert_same(oracle.batch_norm(PLAIN, STATE4, X, True, ghost_batch_size=8), whole)


def test_renorm():
    """Batch: mean 2, deviation 1. Running: mean 0, deviation 4. r = 1/4 and d = 1/2, where the limits allow."""
    state = oracle.State(np.zeros(1), np.full(1, 16.0), 7)
    limits = [(9, 9, (0.25, 0.75)), (2, lambda count: count - 6.75, (-0.25, 0.75)), (1, 0, (-1, 1))]
    for r_max, d_max, expected in limits:
        renorm = SimpleNamespace(r_max=r_max, d_max=d_max)
        y, _ = oracle.batch_norm(PLAIN, state, column(1, 3), True, renorm=renorm, epsilon=0)
        assert_close(y, column(*expected))


def test_schedules():
    """Equal weights make the mean of all batches; debiased ones hidden/(1 − dᵗ); both forget the initial state."""
    batches = np.random.default_rng(1).normal(2, 3, (5, 8, 4))
    for schedule, weights in ((oracle.cumulative(), np.ones(5)), (oracle.debiased(0.9), 0.9 ** np.arange(4, -1, -1))):
        state = STATE4._replace(count=0)
        for x in batches:
            _, state = oracle.batch_norm(PLAIN, state, x, True, momentum=schedule)
        assert_close(state.mean, np.average(batches.mean(1), 0, weights))
        assert_close(state.var, np.average(batches.var(1), 0, weights))


@pytest.mark.parametrize(
    ("activation", "values"),
    [
        (None, (-2, 0, 1)),
        ("relu", (0, 0, 1)),
        ("leaky_relu", (-0.02, 0, 1)),
        ("silu", (-0.238406, 0, 0.731059)),
        ("gelu", (-0.045402, 0, 0.841192)),
        ("tanh", (-0.964028, 0, 0.761594)),
        ("sigmoid", (0.119203, 0.5, 0.731059)),
        ("elu", (-0.864665, 0, 1)),
        (np.square, (4, 0, 1)),
    ],
)
def test_residual_and_activation(activation, values):
    """The residual comes after the affine transform and before the activation."""
    params = SimpleNamespace(scale=np.asarray([3.0]), bias=np.asarray([7.0]))
    residual = column(-2, 0, 1) - 7
    x = column(4, 4, 4)
    y, _ = oracle.batch_norm(params, STATE, x, True, residual=residual, activation=activation)
    np.testing.assert_allclose(y, column(*values), atol=1e-6)


def test_gradients():
    """The gradients against numerical differences of the oracle itself."""
    rng = np.random.default_rng(2)
    params = SimpleNamespace(scale=rng.normal(size=4), bias=rng.normal(size=4))
    g = rng.normal(size=X.shape)
    exact = oracle.gradients(params, X, g, epsilon=0.1)
    vary = {"x": X, "scale": params.scale, "bias": params.bias}
    for name, value in vary.items():
        v = rng.normal(size=value.shape)

        def loss(t, name=name, value=value, v=v):
            moved = vary | {name: value + t * v}
            p = SimpleNamespace(scale=moved["scale"], bias=moved["bias"])
            return np.sum(g * oracle.batch_norm(p, None, moved["x"], True, epsilon=0.1)[0])

        difference = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert_close(np.sum(getattr(exact, name) * v), difference, condition=1e5)  # differences over 2·10⁻⁵
