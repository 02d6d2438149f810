"""With `flax.linen.BatchNorm` replaced by ours, everything that Flax documents and tests of it still holds.

Each test also runs with Flax's own class, which shows that the assertions describe Flax's behaviour.
"""

import doctest
import inspect
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close
from flax.training.train_state import TrainState
from jax.sharding import AxisType, PartitionSpec

import jaxbn.linen

KEY = jax.random.key(0)
DOCUMENTED = inspect.getdoc(nn.BatchNorm) or ""  # before anything is swapped


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


@pytest.fixture(autouse=True, params=[jaxbn.linen.BatchNorm, nn.BatchNorm], ids=["swapped", "Flax"])
def swap(request, monkeypatch):
    """Run each test with either class as `nn.BatchNorm`."""
    monkeypatch.setattr(nn, "BatchNorm", request.param)
    return request.param


def test_the_examples_of_the_docstring():
    test = doctest.DocTestParser().get_doctest(DOCUMENTED, {}, "flax.linen.BatchNorm", None, None)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test)
    assert result.failed == 0
    assert result.attempted > 5


class MLP(nn.Module):
    """The network of Flax's batch normalization guide."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(features=4)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.relu(x)
        return nn.Dense(features=1)(x)


class CNN(nn.Module):
    """With the options that the guide's models pass, and norms with and without names."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(8, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=x.dtype)(x))
        x = nn.avg_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        x = nn.BatchNorm(use_running_average=not train, name="last")(nn.Dense(16)(x))
        return nn.Dense(3)(nn.relu(x))


def test_the_guides_variables_and_modes():
    x = jnp.ones((1, 3))
    variables: Any = MLP().init(KEY, x, train=False)
    assert jax.tree.map(jnp.shape, variables) == {
        "batch_stats": {"BatchNorm_0": {"mean": (4,), "var": (4,)}},
        "params": {
            "BatchNorm_0": {"bias": (4,), "scale": (4,)},
            "Dense_0": {"bias": (4,), "kernel": (3, 4)},
            "Dense_1": {"bias": (1,), "kernel": (4, 1)},
        },
    }
    x, model = jax.random.normal(KEY, (10, 3)), cast(Any, MLP())
    y, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.shape == (10, 1)
    hidden = x @ variables["params"]["Dense_0"]["kernel"]
    statistics = updates["batch_stats"]["BatchNorm_0"]
    assert_close(statistics["mean"], 0.01 * hidden.mean(0), size=0.01)
    assert_close(statistics["var"], 0.99 + 0.01 * hidden.var(0), size=0)
    evaluated: Any = MLP().apply(variables, x, train=False)
    assert evaluated.shape == (10, 1)


class State(TrainState):
    batch_stats: Any = None


@pytest.mark.parametrize("model", [MLP, CNN])
def test_the_guides_training(model):
    """`TrainState` with `batch_stats`, `mutable=["batch_stats"]` in training, running statistics in evaluation."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(32, 8, 8, 1) if model is CNN else (32, 3)), jnp.float32)
    variables = model().init(KEY, x, train=False)
    labels = jnp.asarray(rng.integers(0, 3, 32)) if model is CNN else x.sum(-1, keepdims=True)
    state = State.create(apply_fn=model().apply, tx=optax.adam(1e-2), **variables)

    def loss_of(logits):
        if model is CNN:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return optax.l2_loss(logits, labels).mean()

    @jax.jit
    def train_step(state):
        def loss(params):
            logits, updates = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats}, x=x, train=True, mutable=["batch_stats"]
            )
            return loss_of(logits), updates

        (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        state = state.apply_gradients(grads=gradients)
        return state.replace(batch_stats=updates["batch_stats"]), value

    @jax.jit
    def eval_step(state):
        return loss_of(state.apply_fn({"params": state.params, "batch_stats": state.batch_stats}, x=x, train=False))

    state, first = train_step(state)
    last = first
    for _ in range(300):
        state, last = train_step(state)
    assert last < 0.05 * first
    assert eval_step(state) < 0.5 * first  # statistics of a momentum of 0.99, after as many steps: nearly the batch's


def normal(shape=(4, 3, 2), scale=1.0):
    return scale * jax.random.normal(jax.random.key(1), shape)


@pytest.mark.parametrize("fast", [True, False])
def test_normalised_and_tracked(fast):
    x = normal()
    module: Any = nn.BatchNorm(momentum=0.9, use_running_average=False, use_fast_variance=fast)
    y, initial = module.init_with_output(KEY, x)
    np.testing.assert_allclose(y.mean((0, 1)), np.zeros(2), atol=1e-4)
    np.testing.assert_allclose(y.var((0, 1)), 1, atol=1e-4)  # but for ε
    y, updated = module.apply(initial, x, mutable=["batch_stats"])
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * x.mean((0, 1)), atol=1e-4)
    assert_close(updated["batch_stats"]["var"], 0.9 + 0.1 * x.var((0, 1)), condition=2)


def test_complex_input():
    x = jax.random.normal(jax.random.key(1), (4, 3, 2), jnp.complex64)
    module: Any = nn.BatchNorm(momentum=0.9, use_running_average=False)
    y, initial = module.init_with_output(KEY, x)
    assert y.dtype == jnp.complex64
    np.testing.assert_allclose(y.mean((0, 1)), np.zeros(2), atol=1e-4)
    np.testing.assert_allclose(y.var((0, 1)), 1, atol=1e-4)  # but for ε
    _, updated = module.apply(initial, x, mutable=["batch_stats"])
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * x.mean((0, 1)), atol=1e-4)


def test_one_norm_called_several_times():
    """All calls share the variables; initialisation works without the mapped axis."""

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            norm = nn.BatchNorm(name="norm", use_running_average=False, axis_name="batch")
            x = norm(x)
            return x, norm(x)

    x = normal((8, 3), scale=5.0)
    model: Any = Twice()
    (y, again), variables = model.init_with_output(KEY, x)
    np.testing.assert_allclose(y.mean(0), np.zeros(3), atol=1e-4)
    np.testing.assert_allclose(again, y, atol=1e-4)
    assert set(variables["params"]) == set(variables["batch_stats"]) == {"norm"}
    apply = jax.vmap(lambda x: model.apply(variables, x, mutable=["batch_stats"]), axis_name="batch")
    (y, again), updates = apply(x[:, None])
    np.testing.assert_allclose(y[:, 0].var(0), 1, atol=1e-4)
    once = 0.01 * x.mean(0)
    assert_close(updates["batch_stats"]["norm"]["mean"][0], 0.99 * once, condition=5)


SHARED: dict[str, Any] = {"use_running_average": False, "momentum": 0.9, "axis_name": "batch"}


def assert_shared(y, statistics, x):
    """Normalised over the union of the shards along the first axis; statistics of one shard, equal to the others'."""
    assert_close(y.mean((0, 1)), np.zeros(x.shape[-1]), condition=5)
    np.testing.assert_allclose(y.var((0, 1)), 1, atol=1e-4)  # but for ε
    assert_close(statistics["mean"], 0.1 * x.mean((0, 1)))
    assert_close(statistics["var"], 0.9 + 0.1 * x.var((0, 1)), condition=5, size=0)


def test_statistics_shared_under_vmap():
    """The guide's `vmap` with `axis_name`, whose updates come out unmapped."""
    x = normal((4, 6, 2)) + 1
    module: Any = nn.BatchNorm(**SHARED)
    variables = module.init(KEY, x[0])
    apply = jax.vmap(
        lambda variables, x: module.apply(variables, x, mutable=["batch_stats"]),
        in_axes=(None, 0),
        out_axes=(0, None),
        axis_name="batch",
    )
    y, updates = apply(variables, x)
    assert_shared(y, updates["batch_stats"], x)


@pytest.mark.filterwarnings("ignore:.*pmap.*:DeprecationWarning")
def test_statistics_shared_under_pmap():
    x = normal((8, 6, 2)) + 1
    module: Any = nn.BatchNorm(**SHARED)
    variables = module.init(KEY, x[0])
    apply = jax.pmap(
        lambda variables, x: module.apply(variables, x, mutable=["batch_stats"]), axis_name="batch", in_axes=(None, 0)
    )
    y, updates = apply(variables, x)
    for shard in range(8):
        assert_shared(y, jax.tree.map(lambda leaf, shard=shard: leaf[shard], updates["batch_stats"]), x)


def test_statistics_shared_under_shard_map():
    x = normal((8, 6, 2)) + 1
    module: Any = nn.BatchNorm(**SHARED)
    variables = module.init(KEY, x[0])

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"])

    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    specs: Any = {"in_specs": (PartitionSpec(), PartitionSpec("batch"))}
    mapped = jax.shard_map(apply, mesh=mesh, out_specs=(PartitionSpec("batch"), PartitionSpec()), **specs)
    y, updates = jax.jit(mapped)(variables, x.reshape(48, 2))
    assert_shared(y.reshape(x.shape), updates["batch_stats"], x)


@pytest.mark.parametrize("groups", [[[0, 1], [2, 3], [4, 5], [6, 7]], [[0, 1, 2, 3], [4, 5, 6, 7]]])
@pytest.mark.filterwarnings("ignore:.*pmap.*:DeprecationWarning")
def test_statistics_shared_in_groups(groups):
    x = normal((8, 6, 2)) * np.arange(1, 9)[:, None, None]
    module: Any = nn.BatchNorm(axis_index_groups=groups, **SHARED)
    variables = module.init(KEY, x[0])
    apply = jax.pmap(lambda x: module.apply(variables, x, mutable=["batch_stats"]), axis_name="batch")
    y, updates = apply(x)
    for group in groups:
        statistics = jax.tree.map(lambda leaf, group=group: leaf[group[0]], updates["batch_stats"])
        assert_shared(y[jnp.array(group)], statistics, x[jnp.array(group)])


@pytest.mark.parametrize("shared", [True, False])
def test_under_a_lifted_vmap(shared):
    """Shared statistics have no axis of their own; statistics of their own have one, as have the parameters."""
    x = normal((4, 6, 2)) + 1
    axes: Any = {"params": None, "batch_stats": None} if shared else {"params": 0, "batch_stats": 0}
    options: Any = SHARED if shared else SHARED | {"axis_name": None}
    mapped: Any = nn.vmap(nn.BatchNorm, variable_axes=axes, split_rngs={"params": not shared}, axis_name="batch")
    module = mapped(**options)
    variables = module.init(KEY, x)
    y, updates = module.apply(variables, x, mutable=["batch_stats"])
    if shared:
        assert jax.tree.map(jnp.shape, variables["params"]) == {"scale": (2,), "bias": (2,)}
        assert_shared(y, updates["batch_stats"], x)
        return
    assert jax.tree.map(jnp.shape, variables["params"]) == {"scale": (4, 2), "bias": (4, 2)}
    for member in range(4):
        statistics = jax.tree.map(lambda leaf, member=member: leaf[member], updates["batch_stats"])
        assert_shared(y[member : member + 1], statistics, x[member : member + 1])


def test_under_lifted_jit_and_in_sequential():
    x = normal((8, 3), scale=3.0) + 1
    module: Any = nn.Sequential([nn.jit(nn.BatchNorm)(use_running_average=False), nn.BatchNorm(False, use_bias=False)])
    y, variables = module.init_with_output(KEY, x)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-4)  # but for ε
    assert [set(layer) for layer in variables["params"].values()] == [{"scale", "bias"}, {"scale"}]


def test_half_precision_is_normalised_in_float32():
    """The sum of 10⁵ entries overflows float16."""
    x = jnp.asarray(normal((100_000, 1), scale=0.1) + 1, jnp.float16)
    module: Any = nn.BatchNorm(False, dtype=jnp.float16)
    y, _ = module.init_with_output(KEY, x)
    assert y.dtype == jnp.float16
    assert_close(np.asarray(y, np.float64).std(), 1, condition=10, dtype="float16")  # ε is 10⁻³ of the variance


def test_a_large_mean_with_the_slow_variance():
    """Flax offers the slow variance for this case; the fast one fails."""
    x = normal((512, 3)) + 1e4
    y, _ = nn.BatchNorm(False, use_fast_variance=False).init_with_output(KEY, x)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-3)  # 1e4 + x rounds x to 2⁻¹⁰


@pytest.mark.parametrize("use_running_average", [True, False])
def test_a_mask_equals_the_rows_that_count(use_running_average):
    x = normal((6, 3))
    mask = np.array([True, True, False, True, False, True])[:, None]
    module: Any = nn.BatchNorm(use_running_average, momentum=0.9)
    variables = module.init(KEY, x)
    y, updates = module.apply(variables, x, mask=mask, mutable=["batch_stats"])
    expected, filtered = module.apply(variables, x[mask[:, 0]], mutable=["batch_stats"])
    assert_close(y[mask[:, 0]], expected)
    assert_close(updates, filtered)


def test_no_gradient_of_the_statistics_is_lost():
    """The derivative through mean and variance: the gradient of x sums to 0 and is orthogonal to the output."""
    x = normal((8, 3), scale=2.0)
    module: Any = nn.BatchNorm(False, epsilon=0.0)
    variables = module.init(KEY, x)
    weights = normal((8, 3)) ** 3

    def loss(x):
        y, _ = module.apply(variables, x, mutable=["batch_stats"])
        return jnp.sum(y * weights), y

    gradient, y = jax.grad(loss, has_aux=True)(x)
    assert_close(gradient.sum(0), np.zeros(3), condition=5)
    assert_close((gradient * y).sum(0), np.zeros(3), condition=5)
    assert np.abs(gradient).max() > 0.1
