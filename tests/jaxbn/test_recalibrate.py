"""Running statistics from data: those of all data together, for every division, in networks of all forms."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close
from jax.sharding import NamedSharding, PartitionSpec

import jaxbn.linen
from jaxbn import recalibrate

KEY = jax.random.key(0)
SPLITS = ([64], [32, 32], [10, 20, 34])
NAMES = ("mean", "var")


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly."""


class Network(nn.Module):
    """`layers` times dense, norm and relu, in training mode or not."""

    layers: int = 1
    norm: Any = jaxbn.linen.BatchNorm

    @nn.compact
    def __call__(self, x, train=False, **options):
        for i in range(self.layers):
            x = nn.Dense(5, name=f"dense{i}")(x)
            x = nn.relu(self.norm(use_running_average=not train, name=f"norm{i}")(x, **options))
        return x


def data(n=64, features=3, seed=0, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).normal(1, 2, (n, features)), dtype)


def started(model, x, seed=1):
    """Variables after some training: scales, biases and statistics that differ from the initial ones."""
    rng = np.random.default_rng(seed)
    variables = model.init(KEY, x)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.uniform(0, 0.5, leaf.shape), leaf.dtype), variables)


def training(model, **options):
    return lambda variables, x: model.apply(variables, x, train=True, mutable=["batch_stats"], **options)


def batches(x, sizes):
    return jnp.split(x, np.cumsum(sizes)[:-1])


def assert_trees(actual, expected, rtol=2e-6, atol=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(oracle.wide(a), oracle.wide(b), rtol, atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_one_norm_gets_the_statistics_of_all_the_data(sizes):
    model, x = Network(), data()
    variables = started(model, x)
    new = recalibrate(training(model), variables, batches(x, sizes))
    dense = oracle.wide(variables["params"]["dense0"]["kernel"]), oracle.wide(variables["params"]["dense0"]["bias"])
    inputs = oracle.wide(x) @ dense[0] + dense[1]
    assert_close(new["batch_stats"]["norm0"]["mean"], inputs.mean(0))
    assert_close(new["batch_stats"]["norm0"]["var"], inputs.var(0), size=0)
    assert_trees(new["params"], variables["params"], 0, 0)


def exactly_calibrated(model, variables, x):
    """The exact statistics in float64, norm by norm: of its inputs in evaluation behind calibrated norms."""
    values, stats = oracle.wide(x), {}
    for i in range(model.layers):
        p, n = variables["params"][f"dense{i}"], variables["params"][f"norm{i}"]
        values = values @ oracle.wide(p["kernel"]) + oracle.wide(p["bias"])
        mean, var = values.mean(0), values.var(0)
        stats[f"norm{i}"] = {"mean": mean, "var": var}
        values = (values - mean) / np.sqrt(var + 1e-5) * oracle.wide(n["scale"]) + oracle.wide(n["bias"])
        values = np.maximum(values, 0)
    return stats


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_a_chain_of_norms_settles_at_the_statistics_of_evaluation(sizes):
    """The result is independent of the division into batches and of the previous statistics."""
    model, x = Network(layers=4), data()
    variables = started(model, x)
    new = recalibrate(training(model), variables, batches(x, sizes))
    for name, expected in exactly_calibrated(model, variables, x).items():
        for part in NAMES:
            assert_close(new["batch_stats"][name][part], expected[part], condition=10)
    again = recalibrate(training(model), new, batches(x, [64]))
    assert_trees(again, new, 2e-5, 1e-5)


def test_passes_are_exact_for_as_many_norms():
    model, x = Network(layers=3), data()
    variables = started(model, x)
    expected = exactly_calibrated(model, variables, x)
    for passes in (1, 2, 3):
        new = recalibrate(training(model), variables, batches(x, [8] * 8), passes=passes)["batch_stats"]
        errors = [np.abs(new[f"norm{i}"]["mean"] - expected[f"norm{i}"]["mean"]).max() for i in range(3)]
        assert max(errors[:passes]) < 1e-5
        assert all(error > 1e-3 for error in errors[passes:])


def test_one_pass_is_precise_bn():
    """Wu & Johnson: every norm normalises by its batch, and the batches' moments make up those of all."""
    model, x = Network(layers=2), data()
    variables = started(model, x)
    new = recalibrate(training(model), variables, batches(x, [16, 48]), passes=1)
    norm = jaxbn.linen.BatchNorm(use_running_average=False)
    inputs = []
    for part in batches(x, [16, 48]):
        p = variables["params"]
        h = part @ p["dense0"]["kernel"] + p["dense0"]["bias"]
        fresh = {"params": p["norm0"], "batch_stats": variables["batch_stats"]["norm0"]}
        h = nn.relu(norm.apply(fresh, h, mutable=["batch_stats"])[0])
        inputs.append(oracle.wide(h @ p["dense1"]["kernel"] + p["dense1"]["bias"]))
    whole = np.concatenate(inputs)
    assert_close(new["batch_stats"]["norm1"]["mean"], whole.mean(0), condition=5)
    assert_close(new["batch_stats"]["norm1"]["var"], whole.var(0), condition=5, size=0)


def normed(**options):
    """A network of a single norm, and its `apply_fn` for batches (x, keywords)."""
    norm = jaxbn.linen.BatchNorm(use_running_average=False, **options)

    def apply_fn(variables, batch):
        x, keywords = batch
        return norm.apply(variables, x, mutable=["batch_stats"], **keywords)

    return norm, apply_fn


def test_weights_count_batches_more_than_once():
    norm, apply_fn = normed()
    x = data(30)
    parts = [(part, {}) for part in batches(x, [10, 14, 6])]
    new = recalibrate(apply_fn, norm.init(KEY, x), parts, weights=[2, 0.5, 0])
    w = np.repeat([2, 0.5, 0], [10, 14, 6])
    mean = np.average(oracle.wide(x), axis=0, weights=w)
    assert_close(new["batch_stats"]["mean"], mean)
    assert_close(new["batch_stats"]["var"], np.average((oracle.wide(x) - mean) ** 2, axis=0, weights=w), size=0)


@pytest.mark.parametrize("axis", [-1, 1])
def test_masks_weigh_what_counts(axis):
    """Masks of single entries, so that channels have different weights; masked-out entries may be NaN."""
    norm, apply_fn = normed(axis=axis)
    rng = np.random.default_rng(0)
    x, mask = rng.normal(1, 2, (24, 4, 3)).astype(np.float32), rng.random((24, 4, 3)) < 0.6
    mask[:10, 0], mask[:10, :, 0] = False, False  # a channel without weight in one batch
    x[~mask] = np.nan
    parts = [(x[a:b], {"mask": mask[a:b]}) for a, b in ((0, 10), (10, 13), (13, 24))]
    new = recalibrate(apply_fn, norm.init(KEY, x), parts)["batch_stats"]
    expected = oracle.statistics(oracle.wide(x), mask.astype(float), oracle.reduced_axes(axis, 3))
    assert_close(new["mean"], expected.mean.ravel())
    assert_close(new["var"], expected.var.ravel(), size=0)


def test_a_channel_without_any_weight_keeps_its_statistics():
    norm, apply_fn = normed()
    x = data(8)
    stats = {"mean": jnp.asarray([7.0, 8, 9]), "var": jnp.asarray([2.0, 3, 4])}
    mask = np.broadcast_to([True, False, True], (8, 3))
    variables = {"params": norm.init(KEY, x)["params"], "batch_stats": stats}
    new = recalibrate(apply_fn, variables, [(x, {"mask": mask})])["batch_stats"]
    expected = oracle.wide(x).mean(0), oracle.wide(x).var(0)
    assert_close(new["mean"], np.where(mask[0], expected[0], [7, 8, 9]))
    assert_close(new["var"], np.where(mask[0], expected[1], [2, 3, 4]), size=0)


def test_large_means():
    """The means of the batches are not rounded before they are compared: the variance between them is exact."""
    norm, apply_fn = normed()
    rng = np.random.default_rng(0)
    x = (rng.normal(1e5, 1, (256, 3)) + np.repeat(rng.normal(size=(32, 1)), 8, axis=0)).astype(np.float32)
    new = recalibrate(apply_fn, norm.init(KEY, x), [(part, {}) for part in np.split(x, 32)])["batch_stats"]
    assert_close(new["var"], oracle.wide(x).var(0), size=0)
    assert_close(new["mean"], oracle.wide(x).mean(0))


def test_many_batches_do_not_add_up_rounding():
    """Moments are added in pairs of pairs; a running sum of so many would have a larger error."""
    norm, apply_fn = normed()
    x = np.random.default_rng(0).normal(3, 2, (1000, 2, 3)).astype(np.float32)
    new = recalibrate(apply_fn, norm.init(KEY, x[0]), [(part, {}) for part in x])["batch_stats"]
    assert_close(new["mean"], oracle.wide(x).mean((0, 1)))
    assert_close(new["var"], oracle.wide(x).var((0, 1)), size=0)


OPTIONS = {
    "unbiased": {"unbiased": True},
    "momentum 1": {"momentum": 1.0},
    "schedule": {"momentum": jaxbn.cumulative()},
    "ghost batches": {"ghost_batch_size": 4},
    "renorm": {"renorm": jaxbn.BatchRenorm(3.0, 5.0)},
    "no scale": {"use_scale": False, "use_bias": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_whatever_the_options_the_statistics_are_those_of_the_data(options):
    norm, apply_fn = normed(**options)
    x = data(48)
    variables = norm.init(KEY, x)
    new = recalibrate(apply_fn, variables, [(part, {}) for part in batches(x, [16, 32])])
    assert jax.tree.structure(new) == jax.tree.structure(variables)
    assert_close(new["batch_stats"]["mean"], oracle.wide(x).mean(0))
    assert_close(new["batch_stats"]["var"], oracle.wide(x).var(0), size=0)
    if "count" in variables["batch_stats"]:
        assert new["batch_stats"]["count"] == 0


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(x.shape[-1])(x)
        return nn.relu(jaxbn.linen.BatchNorm(use_running_average=not train, name="norm")(x))


class Scanned(nn.Module):
    """The same block over and over, its variables stacked along an axis."""

    layers: int = 3
    axis: int = 0
    remat: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        scan = nn.scan(
            lambda block, x, _: (block(x, train), None),
            variable_axes={"params": self.axis, "batch_stats": self.axis},
            split_rngs={"params": True},
            length=self.layers,
        )
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        return scan(block(name="block"), x, None)[0]


@pytest.mark.parametrize(("axis", "remat"), [(0, False), (1, False), (0, True)])
def test_scanned_layers_are_a_chain(axis, remat):
    """Each is calibrated as in the same network written out."""
    model, x = Scanned(axis=axis, remat=remat), data()
    variables = started(model, x)
    new = recalibrate(training(model), variables, batches(x, [10, 20, 34]))["batch_stats"]["block"]["norm"]
    values = oracle.wide(x)
    for i in range(3):
        p: Any = jax.tree.map(lambda leaf, i=i: oracle.wide(leaf).take(i, axis), variables["params"]["block"])
        values = values @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
        mean, var = values.mean(0), values.var(0)
        assert_close(oracle.wide(new["mean"]).take(i, axis), mean, condition=5, dtype="float32")
        assert_close(oracle.wide(new["var"]).take(i, axis), var, condition=5, size=0, dtype="float32")
        values = np.maximum((values - mean) / np.sqrt(var + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"], 0)


def test_an_ensemble_under_vmap():
    """Each member from its own inputs."""
    axes: Any = (0, None)
    ensemble = nn.vmap(Block, in_axes=axes, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True})
    model, x = ensemble(), jnp.stack([data(seed=1), data(seed=2)])
    variables = model.init(KEY, x, False)
    apply_fn = lambda variables, batch: model.apply(variables, batch, True, mutable=["batch_stats"])  # noqa: E731
    new = recalibrate(apply_fn, variables, [x[:, :20], x[:, 20:]])["batch_stats"]["norm"]
    dense = jax.tree.map(oracle.wide, variables["params"]["Dense_0"])
    inputs = np.einsum("eni,eio->eno", oracle.wide(x), dense["kernel"]) + dense["bias"][:, None]
    assert_close(new["mean"], inputs.mean(1))
    assert_close(new["var"], inputs.var(1), size=0)


def test_a_norm_that_is_called_twice_gets_all_its_inputs():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            norm = jaxbn.linen.BatchNorm(use_running_average=not train, name="norm")
            return norm(x) + norm(2 * x[:5])[0]

    model, x = Twice(), data()
    new = recalibrate(training(model), model.init(KEY, x), [x], passes=1)["batch_stats"]["norm"]
    inputs = np.concatenate([oracle.wide(x), 2 * oracle.wide(x)[:5]])
    assert_close(new["mean"], inputs.mean(0))
    assert_close(new["var"], inputs.var(0), size=0)


def test_frozen_norms_keep_their_statistics():
    class Frozen(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = jaxbn.linen.BatchNorm(use_running_average=True, name="frozen")(x)
            return jaxbn.linen.BatchNorm(use_running_average=not train, name="free")(x)

    model, x = Frozen(), data()
    variables = started(model, x)
    new = recalibrate(training(model), variables, batches(x, [10, 54]))["batch_stats"]
    assert_trees(new["frozen"], variables["batch_stats"]["frozen"], 0, 0)
    before = variables["batch_stats"]["frozen"]
    p = variables["params"]["frozen"]
    inputs = (oracle.wide(x) - before["mean"]) / np.sqrt(oracle.wide(before["var"]) + 1e-5) * p["scale"] + p["bias"]
    assert_close(new["free"]["mean"], inputs.mean(0), condition=5)


def test_shared_statistics_over_shards():
    """In `shard_map`, with an axis name; and sharded arrays under plain `jit`."""
    assert jax.device_count() == 8
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = data()
    model = Network(2, partial(jaxbn.linen.BatchNorm, axis_name="data"))
    variables = started(model, x)
    apply_fn = jax.shard_map(
        training(model),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=(PartitionSpec("data"), PartitionSpec()),
    )
    shared = recalibrate(apply_fn, variables, batches(x, [40, 24]))
    expected = recalibrate(training(Network(2)), variables, [x])
    assert_trees(shared, expected, 1e-5, 1e-5)
    sharded = jax.device_put(batches(x, [40, 24]), NamedSharding(mesh, PartitionSpec("data")))
    assert_trees(recalibrate(training(Network(2)), variables, sharded), expected, 1e-5, 1e-5)


def test_training_goes_on_as_if_nothing_had_been_recorded():
    """Even for a compiled function: the trace of a recording is never used for training, nor the reverse."""
    model, x = Network(), data()
    variables = started(model, x)
    apply_fn = jax.jit(training(model))
    _, expected = training(model)(variables, x)
    for _ in range(2):
        assert_trees(apply_fn(variables, x)[1], expected)
        new = recalibrate(apply_fn, variables, [x])
        assert_trees(new, recalibrate(training(model), variables, [x]))


def test_iterators_and_progress():
    model, x = Network(layers=2), data()
    variables = started(model, x)
    parts = batches(x, [10, 54])
    seen = []

    def progress(batches):
        for batch in batches:
            seen.append(len(batch))
            yield batch

    expected = recalibrate(training(model), variables, parts)
    new = recalibrate(training(model), variables, iter(parts), progress=progress)
    assert_trees(new, expected, 0, 0)
    assert seen == [10, 54] * 2


def test_types_and_containers_stay():
    norm, apply_fn = normed(force_float32_reductions=False, param_dtype=jnp.bfloat16)
    x = data(16, dtype="bfloat16")
    variables = nn.FrozenDict(norm.init(KEY, x))
    new = recalibrate(apply_fn, variables, [(x, {})])
    assert jax.tree.structure(new) == jax.tree.structure(variables)
    assert new["batch_stats"]["mean"].dtype == new["batch_stats"]["var"].dtype == jnp.bfloat16
    exact = jnp.asarray(oracle.wide(x).mean(0), "bfloat16")
    assert_close(new["batch_stats"]["mean"], exact)


@pytest.mark.parametrize("sizes", [[63, 1], [1, 63], [20, 1, 42, 1]], ids=str)
def test_a_batch_of_one_row_joins_its_neighbour(sizes):
    """One row has no variance. There are 64 rows, and one pass over [63, 1] equals one over all of them."""
    model, x = Network(layers=2), data()
    variables = model.init(KEY, x)
    whole = recalibrate(training(model), variables, [x])["batch_stats"]
    joined = recalibrate(training(model), variables, batches(x, sizes))["batch_stats"]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), joined, whole)
    if len(sizes) == 2:
        once = recalibrate(training(model), variables, batches(x, sizes), passes=1)["batch_stats"]
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), once, whole)


def test_what_has_no_rows_first_is_not_joined():
    """Batches of one image have variances and are not joined, nor are batches with an array shared by all rows."""
    norm = jaxbn.linen.BatchNorm(use_running_average=False)
    x = np.asarray(data()).reshape(64, -1, 1)
    pairs = [(x[:63], np.float32(2)), (x[63:], np.float32(3))]
    variables = norm.init(KEY, x)

    def apply_fn(variables, batch):
        return norm.apply(variables, batch[0] * batch[1], mutable=["batch_stats"])

    new = recalibrate(apply_fn, variables, pairs)["batch_stats"]
    values = np.concatenate([oracle.wide(part) * factor for part, factor in pairs])
    np.testing.assert_allclose(new["mean"], values.mean((0, 1)), rtol=1e-5, atol=1e-6)


def test_weights_count_by_their_ratio():
    norm = jaxbn.linen.BatchNorm(use_running_average=False)
    x = data()
    variables = norm.init(KEY, x)
    apply_fn = partial(norm.apply, mutable=["batch_stats"])
    plain, scaled = (
        recalibrate(apply_fn, variables, batches(x, [20, 44]), weights=[w, 3 * w])["batch_stats"] for w in (1.0, 1e300)
    )
    jax.tree.map(np.testing.assert_array_equal, scaled, plain)


MODEL, X = Network(layers=2), np.ones((8, 3), np.float32)
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"variables": {"params": {}}}, ValueError, "variables must hold batch_stats.*; got params"),
    ({"variables": {"batch_stats": {"a": {"mean": np.ones(3)}}}}, ValueError, "must have norms to recalibrate"),
    ({"batches": []}, ValueError, "batches must hold one or more batches; got none$"),
    ({"weights": [1.0, 2.0]}, ValueError, "one number for each batch; got 1 batches and 2 weights"),
    ({"weights": []}, ValueError, "not all 0"),
    ({"batches": [X, X], "weights": [1.0]}, ValueError, "got more than 1 batches"),
    ({"weights": [-1.0]}, ValueError, r"finite numbers of at least 0, and not all 0; got \[-1.0\]"),
    ({"weights": [math.inf]}, ValueError, "finite numbers"),
    ({"passes": 0}, ValueError, "passes must be a positive integer, or None.*; got 0"),
    ({"apply_fn": MODEL.apply}, TypeError, "apply_fn must return a pair"),
    ({"apply_fn": lambda v, x: MODEL.apply(v, x, mutable=["batch_stats"])}, ValueError, "must run in training mode"),
]


@pytest.mark.parametrize(("changed", "error", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_what_is_wrong_is_said(changed, error, message):
    good = {"apply_fn": training(MODEL), "variables": MODEL.init(KEY, X), "batches": [X]}
    with pytest.raises(error, match=message):
        recalibrate(**(good | changed))


def test_flax_norms_are_no_silent_mistake():
    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = jaxbn.linen.BatchNorm(use_running_average=not train, name="ours")(x)
            return nn.BatchNorm(use_running_average=not train, name="theirs")(x)

    model, x = Mixed(), data()
    with pytest.raises(ValueError, match=r"theirs must record the moments of its batch.*with jaxbn\.linen\.BatchNorm"):
        recalibrate(training(model), model.init(KEY, x), [x])
