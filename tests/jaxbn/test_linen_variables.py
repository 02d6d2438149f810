"""The variables of the Linen module: boxes and annotations, summaries, collections, masks, and the added options."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close
from equivalence import assert_same, batch
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxbn.linen
from jaxbn import BatchNormParams, BatchRenorm

OURS: Any = jaxbn.linen.BatchNorm
FLAX: Any = nn.BatchNorm
KEY = jax.random.key(0)
X = batch(shape=(8, 6))
PLAIN = BatchNormParams(None, None)
START = oracle.State(np.zeros(6), np.ones(6), 0)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


def partitioned(norm):
    boxed = nn.with_partitioning
    return norm(
        False, scale_init=boxed(nn.initializers.ones, ("model",)), bias_init=boxed(nn.initializers.zeros, (None,))
    )


def test_partitioned_parameters_stay_in_their_boxes():
    def run(norm):
        module = partitioned(norm)
        variables = module.init(KEY, X)

        def loss(params):
            return jnp.sum(module.apply({**variables, "params": params}, X**3, mutable=["batch_stats"])[0] ** 3)

        gradients = jax.jit(jax.grad(loss))(variables["params"])
        plain = module.apply(nn.unbox(variables), X, mutable=["batch_stats"])
        return variables, gradients, plain, nn.get_partition_spec(variables)["params"]

    *ours, specs = run(OURS)
    *flaxs, flax_specs = run(FLAX)
    assert specs == flax_specs == {"scale": PartitionSpec("model"), "bias": PartitionSpec(None)}
    for tree, key in ((ours[0]["params"], "scale"), (ours[1], "scale")):
        assert isinstance(tree[key], nn.Partitioned)
        assert tree[key].names == ("model",)
    assert_same(ours, flaxs)


def test_partitioned_parameters_on_a_mesh():
    """Sharded parameters and a sharded batch, under plain `jit`: the same numbers."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    x = batch(shape=(16, 8))

    def run(norm):
        module = partitioned(norm)
        with jax.set_mesh(mesh):
            specs = nn.get_partition_spec(jax.eval_shape(lambda: module.init(KEY, x)))
            shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
            variables = jax.jit(lambda: module.init(KEY, x), out_shardings=shardings)()
            placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data", "model")))
            answer = jax.jit(lambda v, x: module.apply(v, x, mutable=["batch_stats"]))(variables, placed)
        assert variables["params"]["scale"].value.sharding.spec == PartitionSpec("model")
        return variables, answer

    assert_same(run(OURS), run(FLAX))


def test_logically_partitioned_parameters():
    def run(norm):
        module = norm(False, scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("channels",)))
        variables = module.init(KEY, X)
        answer = module.apply(variables, X, mutable=["batch_stats"])
        return variables, answer, nn.get_partition_spec(variables)["params"]

    *ours, specs = run(OURS)
    *flaxs, flax_specs = run(FLAX)
    assert specs == flax_specs == {"scale": PartitionSpec("channels"), "bias": PartitionSpec()}
    assert_same(ours, flaxs)


def test_a_scan_adds_its_axis_to_the_boxes():
    class Layer(nn.Module):
        norm: Any

        @nn.compact
        def __call__(self, x, _):
            return partitioned(self.norm)(x), None

    def run(norm):
        layers = nn.scan(
            Layer,
            {"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=3,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(norm)
        variables = layers.init(KEY, X, None)
        return variables, layers.apply(variables, X, None, mutable=["batch_stats"])

    ours: Any = run(OURS)
    assert ours[0]["params"]["BatchNorm_0"]["scale"].names == ("layers", "model")
    assert_same(ours, run(FLAX))


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("entries", [False, True], ids=["rows", "entries"])
def test_masks_equal_flaxs(entries, dtype, axis):
    x, g = batch(dtype, (8, 5, 6)), batch(seed=9)
    mask = np.random.default_rng(0).random(x.shape) < 0.7 if entries else np.arange(8)[:, None, None] < 5

    def run(norm):
        module = norm(False, axis=axis, momentum=0.5)
        variables = module.init(KEY, x, mask=mask)

        def loss(params, x):
            y, updates = module.apply({**variables, "params": params}, x, mask=mask, mutable=["batch_stats"])
            return jnp.sum(jnp.where(mask, y * g, 0)), (y, updates)

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables["params"], x)[1:]

    assert_same(run(OURS), run(FLAX), least=2**-7 if dtype == "bfloat16" else 0)


def test_a_mask_may_be_of_weights():
    """Flax treats a weight as a bool."""
    x, weights = X, np.arange(8.0)[:, None] / 4
    module = OURS(False, momentum=0.0)
    y, updates = module.apply(module.init(KEY, x), x, mask=weights, mutable=["batch_stats"])
    exact, state = oracle.batch_norm(PLAIN, START, x, True, mask=weights, momentum=0.0)
    assert_close(y[1:], exact[1:])
    assert_close(updates["batch_stats"]["var"], state.var, size=0)


def test_masks_over_shards_count_by_their_weight():
    """Flax averages the shards' means regardless of their weights; a shard without entries makes NaN."""
    x = batch(shape=(4, 5, 6))
    masks = np.arange(5)[:, None] < np.array([5, 2, 1, 0])[:, None, None]

    def run(norm):
        module = norm(False, momentum=0.0, axis_name="shards")
        variables = module.init(KEY, x[0])
        apply = jax.vmap(lambda x, m: module.apply(variables, x, mask=m, mutable=["batch_stats"]), axis_name="shards")
        return jax.jit(apply)(x, masks)

    y, updates = run(OURS)
    exact = oracle.batch_norm_shards(PLAIN, START, list(x), True, masks=list(masks), momentum=0.0)
    assert_close(y, np.stack([part for part, _ in exact]))
    means = np.stack([state.mean for _, state in exact])
    assert_close(updates["batch_stats"]["mean"], means)
    assert np.isnan(run(FLAX)[0]).all()


SCHEDULES = {
    "momentum": ({"momentum": jaxbn.cumulative()}, {"momentum": oracle.cumulative()}),
    "renorm": ({"renorm": BatchRenorm(lambda t: 1.0 + t, lambda t: 0.5 * t)},) * 2,
    "both": ({"momentum": jaxbn.debiased(0.8), "renorm": BatchRenorm(lambda t: 1.0 + t, 0.5)},) * 2,
}


@pytest.mark.parametrize("options", SCHEDULES)
def test_schedules_have_a_count(options):
    ours, reference = SCHEDULES[options]
    module, state = OURS(False, **ours), START
    variables = module.init(KEY, X)
    assert variables["batch_stats"]["count"] == 0
    step = jax.jit(lambda variables, x: module.apply(variables, x, mutable=["batch_stats"]))
    for number in range(3):
        x = batch(shape=(8, 6), seed=number) * (1 + number)
        exact, state = oracle.batch_norm(PLAIN, state, x, True, **reference)
        y, updates = step(variables, x)
        variables = {**variables, **updates}
        assert_close(y, exact, condition=3)
    stats = variables["batch_stats"]
    assert stats["count"] == 3
    assert stats["count"].dtype == jnp.int32
    assert_close(stats["mean"], state.mean)
    assert_close(stats["var"], state.var, condition=5, size=0)


def test_without_a_schedule_there_is_no_count():
    assert set(OURS(False, renorm=BatchRenorm(2.0, 1.0)).init(KEY, X)["batch_stats"]) == {"mean", "var"}


def test_the_other_options_reach_the_core():
    """Against the oracle: groups, the unbiased variance, a residual and an activation, in one call."""
    residual = batch(shape=(8, 6), seed=1)
    options: Any = {"momentum": 0.5, "unbiased": True, "ghost_batch_size": 4, "activation": "relu"}
    module = OURS(False, **options)
    y, updates = module.apply(module.init(KEY, X), X, residual=residual, mutable=["batch_stats"])
    exact, state = oracle.batch_norm(PLAIN, START, X, True, residual=residual, **options)
    assert_close(y, exact)
    assert_close(updates["batch_stats"]["var"], state.var, size=0)
    assert_close(updates["batch_stats"]["mean"], state.mean)


def test_initialising_asks_neither_for_shards_nor_for_groups():
    """With one example and no mapped axis, the variables are the same."""
    module = OURS(False, axis_name="batch", axis_index_groups=[[0, 1]])
    jax.tree.map(np.testing.assert_array_equal, module.init(KEY, X), FLAX(False).init(KEY, X))
    jax.tree.map(
        np.testing.assert_array_equal, OURS(False, ghost_batch_size=4).init(KEY, X[:1]), FLAX(False).init(KEY, X)
    )


def test_bound_to_variables():
    """`bind`, and a norm that is a submodule made in `setup`."""

    class Network(nn.Module):
        norm_class: Any

        def setup(self):
            self.norm = self.norm_class(use_running_average=False, momentum=0.5)

        def __call__(self, x):
            return self.norm(x)

    def run(norm):
        bound = Network(norm).bind(Network(norm).init(KEY, X), mutable=["batch_stats"])
        return bound(X), bound.norm.variables

    assert_same(run(OURS), run(FLAX))
