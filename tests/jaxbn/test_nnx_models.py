"""The NNX module in models: NNX's transformations, its kinds of variables, metadata and summaries."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close
from equivalence import assert_same, batch
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

import jaxbn.nnx
from jaxbn import BatchNormParams

OURS: Any = jaxbn.nnx.BatchNorm
FLAX: Any = nnx.BatchNorm
X = batch(shape=(8, 6))


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


class Block(nnx.Module):
    def __init__(self, norm: Any, rngs: nnx.Rngs):
        self.linear = nnx.Linear(6, 6, rngs=rngs)
        self.norm = norm(6, momentum=0.9, rngs=rngs)

    def __call__(self, x):
        return x + nnx.relu(self.norm(self.linear(x)))


def plain(norm):
    return Block(norm, nnx.Rngs(0)), lambda block, x: block(x)


def several(norm, count):
    @nnx.split_rngs(splits=count)
    @nnx.vmap
    def blocks(rngs):
        return Block(norm, rngs)

    return blocks(nnx.Rngs(0))


def ensemble(norm):
    """Three members, each with its own parameters and statistics, on the same input."""
    return several(norm, 3), nnx.vmap(lambda block, x: block(x), in_axes=(0, None))


def scanned(norm):
    """Four blocks in a row, as one loop."""
    loop = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    return several(norm, 4), lambda block, x: loop(x, block)


def repeated(norm):
    """One block four times over, its statistics carried along."""

    def body(carry, _):
        block, x = carry
        return (block, block(x)), None

    def run(block, x):
        loop = nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0), length=4)
        return loop((block, x), jnp.arange(4))[0][1]

    return Block(norm, nnx.Rngs(0)), run


def rematerialised(norm):
    return Block(norm, nnx.Rngs(0)), nnx.remat(lambda block, x: block(x))


def shared(norm):
    """Two shards of the batch, with the union's statistics."""
    block = Block(norm, nnx.Rngs(0))
    block.norm.axis_name = "shards"
    run = nnx.vmap(lambda block, x: block(x), in_axes=(nnx.StateAxes({...: None}), 0), axis_name="shards")
    return block, lambda block, x: run(block, x.reshape(2, 4, 6))


@pytest.mark.parametrize("jit", [nnx.jit, lambda function: function], ids=["jit", "eager"])
@pytest.mark.parametrize("model", [plain, ensemble, scanned, repeated, rematerialised, shared])
def test_under_nnxs_transformations(model, jit):
    """Training steps with gradients, then evaluation: equal to Flax's norm under the same transformation."""

    def run(norm):
        block, apply = model(norm)

        @jit
        def step(block, x):
            def loss(block):
                return jnp.sum(jnp.square(apply(block, x)))

            value, gradients = nnx.value_and_grad(loss)(block)
            params = nnx.state(block, nnx.Param)
            nnx.update(block, jax.tree.map(lambda p, g: p - 1e-3 * g / value, params, gradients))
            return value

        losses = [step(block, X * (t + 1)) for t in range(2)]
        state = nnx.to_pure_dict(nnx.state(block))
        block.eval()
        return losses, state, jit(apply)(block, X)

    assert_same(run(OURS), run(FLAX))


@pytest.mark.parametrize("norm", [OURS, FLAX])
def test_remat_leaves_the_statistics_as_they_are(norm):
    """The batch is computed twice, once in the backward pass, and updates the statistics once."""
    states = []
    for model in (plain, rematerialised):
        block, apply = model(norm)
        nnx.jit(nnx.grad(lambda block, apply=apply: jnp.sum(jnp.square(apply(block, X)))))(block)
        states.append(nnx.to_pure_dict(nnx.state(block, nnx.BatchStat)))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_as_pure_functions_of_a_split_module():
    """`jax.jit`, `jax.grad` and `jax.lax.scan` over what `nnx.split` gives, the statistics as auxiliary output."""

    def run(norm):
        graph, params, rest = nnx.split(Block(norm, nnx.Rngs(0)), nnx.Param, ...)

        def loss(params, rest, x):
            block = nnx.merge(graph, params, rest, copy=True)
            value = jnp.sum(jnp.square(block(x)))
            return value, nnx.state(block, nnx.BatchStat)

        def step(carry, x):
            params, rest = carry
            (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(params, rest, x)
            params = jax.tree.map(lambda p, g: p - 1e-3 * g / value, params, gradients)
            return (params, rest), value

        (params, rest), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.stack([X, 2 * X])))((params, rest))
        return losses, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    assert_same(run(OURS), run(FLAX))


def test_statistics_that_are_mutable_arrays():
    """The statistics are updated in place, also inside a gradient."""

    def run(norm):
        with nnx.var_defaults(ref=True):
            graph, params, rest = nnx.split(norm(6, momentum=0.5, rngs=nnx.Rngs(0)), nnx.Param, ...)
        params = jax.tree.map(lambda ref: ref[...], params)

        @jax.jit
        def gradients(params, rest, x):
            return jax.grad(lambda params: jnp.sum(jnp.square(nnx.merge(graph, params, rest)(x) - 1)))(params)

        found = [nnx.to_pure_dict(gradients(params, rest, X * (t + 1))) for t in range(2)]
        return found, jax.tree.map(lambda ref: ref[...], nnx.to_pure_dict(rest))

    assert_same(run(OURS), run(FLAX))


@pytest.mark.usefixtures("x64")
def test_a_mutable_array_keeps_its_type():
    """float64 is rounded to its type; complex numbers are an error."""
    with nnx.var_defaults(ref=True):
        module = OURS(6, momentum=0.0, rngs=nnx.Rngs(0))
    x = batch("float64", (8, 6))
    module(x)
    np.testing.assert_array_equal(module.mean[...], np.mean(x, 0).astype(np.float32), strict=True)
    with pytest.raises(TypeError, match="mutable array of float32 cannot hold a statistic of complex64"):
        module(batch("complex64", (8, 6)))


@pytest.mark.parametrize("hijax", [True, False])
def test_every_kind_of_variable(hijax):
    def run(norm):
        with nnx.var_defaults(hijax=hijax):
            module = norm(6, momentum=0.5, rngs=nnx.Rngs(0))
        return module(X), module.mean[...], module.var[...], module(X, use_running_average=True)

    assert_same(run(OURS), run(FLAX))


def test_metadata_is_kept():
    x = batch(shape=(16, 8))

    def run(norm):
        with jax.set_mesh(jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)):
            module = norm(
                8,
                scale_init=nnx.with_partitioning(nnx.initializers.ones, ("model",)),
                bias_metadata={"out_sharding": ("model",), "note": "mine"},
                rngs=nnx.Rngs(0),
            )
            y = nnx.jit(lambda module, x: module(x))(module, x)
        assert module.scale[...].sharding.spec == module.bias[...].sharding.spec == PartitionSpec("model")
        specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(module)))
        assert specs == {name: PartitionSpec(*("model",) * (name in ("scale", "bias"))) for name in specs}
        assert module.bias.get_metadata("note") == "mine"
        metadata = {name: v.get_metadata() for (name,), v in nnx.to_flat_state(nnx.state(module))}
        metadata["scale"].pop("init_fn", None)
        return metadata, (y, nnx.to_pure_dict(nnx.state(module)))

    ours, flaxs = run(OURS), run(FLAX)
    assert repr(ours[0]) == repr(flaxs[0])
    assert_same(ours[1], flaxs[1])


def test_groups_given_as_lists():
    """Flax keeps the lists, so that its definition cannot be hashed, and takes no groups under `vmap`."""
    groups = [[0, 2], [1, 3]]
    x = batch(shape=(4, 5, 6)) * np.arange(1, 5)[:, None, None]
    ours, flaxs = (
        nnx.split(norm(6, axis_name="s", axis_index_groups=groups, rngs=nnx.Rngs(0))) for norm in (OURS, FLAX)
    )
    with pytest.raises(TypeError, match="unhashable"):
        hash(flaxs[0])
    normalise = jax.jit(lambda graph, state, x: nnx.merge(graph, state, copy=True)(x), static_argnums=0)
    y = jax.vmap(lambda x: normalise(*ours, x), axis_name="s")(x)
    exact = oracle.batch_norm_shards(BatchNormParams(None, None), None, list(x), True, axis_index_groups=groups)
    assert_close(y, np.stack([part for part, _ in exact]))


def test_masks_over_shards_count_by_their_weight():
    """Flax averages the shards' means regardless of their weights; a shard without entries makes NaN."""
    x = batch(shape=(4, 5, 6))
    masks = np.arange(5)[:, None] < np.array([5, 2, 1, 0])[:, None, None]

    def run(norm):
        graph, state = nnx.split(norm(6, momentum=0.0, axis_name="shards", rngs=nnx.Rngs(0)))

        def one(x, mask):
            module = nnx.merge(graph, state, copy=True)
            return module(x, mask=mask), module.mean[...]

        return jax.jit(jax.vmap(one, axis_name="shards"))(x, masks)

    y, mean = run(OURS)
    params, state = BatchNormParams(None, None), oracle.State(np.zeros(6), np.ones(6), 0)
    exact = oracle.batch_norm_shards(params, state, list(x), True, masks=list(masks), momentum=0.0)
    assert_close(y, np.stack([part for part, _ in exact]))
    assert_close(mean, np.stack([state.mean for _, state in exact]))
    assert np.isnan(run(FLAX)[0]).all()
