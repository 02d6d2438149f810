"""Every variant of `cases.py` through every transformation: the numbers are the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import CASES, Case, example, expected, function
from closeness import assert_close
from jax import export
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# The scope has all tests of one case run one after the other, so that `single` compiles once.
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name, scope="module")


def value_and_gradients(case, transform=lambda function: function):
    """A function of an example and a cotangent: y, the new state, and the gradients of params and x through both."""

    def loss(differentiated, e, g):
        params, x = differentiated
        y, state = transform(function(case))(e._replace(params=params, x=x))
        tracked = jnp.sum(jnp.square(state.mean) * state.var) if case.updates else 0.0
        return jnp.sum(y.astype(jnp.float32) * g) + tracked, (y, state)

    def run(e, g):
        (_, outputs), gradients = jax.value_and_grad(loss, has_aux=True)((e.params, e.x), e, g)
        return outputs, gradients

    return run


def cotangent(case):
    y, _ = jax.eval_shape(function(case), example(case))
    return jnp.asarray(np.random.default_rng(1).normal(size=y.shape), jnp.float32)


@functools.cache
def single(case):
    """The outputs and gradients on one device, compiled, without any transformation."""
    return jax.jit(value_and_gradients(case))(example(case), cotangent(case))


@every_case
def test_equals_the_oracle(case):
    e = example(case)
    y, state = function(case)(e)
    assert y.dtype == case.options.get("dtype", jnp.float32)
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, e.state)
    assert_close((y, state), expected(case, e))


@every_case
def test_compiled_equals_eager(case):
    assert_close(single(case)[0], function(case)(example(case)))


@every_case
def test_vmap_over_an_ensemble_equals_a_loop(case):
    members = [example(case, seed=seed) for seed in range(3)]
    outputs = jax.jit(jax.vmap(function(case)))(stack(members))
    for i, member in enumerate(members):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], outputs), expected(case, member))


@pytest.mark.parametrize("case", [c for c in CASES if c.updates], ids=lambda case: case.name, scope="module")
def test_scan_over_steps_equals_a_loop_and_the_closed_form(case):
    first, *_ = examples = [example(case, seed=seed) for seed in range(4)]

    def step(state, e):
        y, state = function(case)(e._replace(state=state))
        return state, y

    scanned, outputs = jax.lax.scan(step, first.state, stack(examples))

    looped = first.state
    for e, y in zip(examples, outputs, strict=True):
        looped, y_looped = step(looped, e)
        assert_close(y, y_looped)
    assert_close(scanned, looped)
    assert_close(scanned, closed_form(case, first.state, examples))


def closed_form(case, state, examples):
    """The sum over the batches, each with weight (1 − wᵢ) times all later weights w of the old statistic."""
    momentum = {"momentum": 0.99, **case.options, **case.reference}["momentum"]
    weights = [oracle.at(momentum, state.count + i) for i in range(len(examples))]
    batches = [expected(case, e, momentum=0.0)[1] for e in examples]
    share = [(1 - w) * np.prod(weights[i + 1 :], 0) for i, w in enumerate(weights)]

    def combine(old, new):
        return np.prod(weights, 0) * oracle.wide(old) + sum(s * batch for s, batch in zip(share, new, strict=True))

    mean = combine(state.mean, [batch.mean for batch in batches])
    var = combine(state.var, [batch.var for batch in batches])
    return mean, var, state.count + len(examples)


@every_case
def test_checkpoint_changes_nothing(case):
    (y, state), gradients = jax.jit(value_and_gradients(case, jax.checkpoint))(example(case), cotangent(case))
    (y_plain, state_plain), gradients_plain = single(case)
    assert_close((y, state), (y_plain, state_plain))
    assert_close(gradients, gradients_plain, condition=10)


@every_case
def test_exported_for_any_size_equals_single(case):
    """Every reduced axis has a symbolic size, a multiple of the ghost batch's rows and of the pooling window."""
    scope = export.SymbolicScope()
    rows, window = case.options.get("ghost_batch_size", 1), 2 if "max_pool" in case.options else 1
    sizes = {axis: f"{window}*s{axis}+{case.shape[axis] % window}" if axis else f"{rows}*s0" for axis in case.reduced}

    def symbolic(array):
        own = zip(range(len(case.shape) - array.ndim, len(case.shape)), array.shape, strict=True)
        shape = ",".join(str(size) if size == 1 else sizes.get(axis, str(size)) for axis, size in own)
        return jax.ShapeDtypeStruct(export.symbolic_shape(f"({shape},)", scope=scope), array.dtype)

    e = example(case)
    any_e = e._replace(x=symbolic(e.x), arrays=jax.tree.map(symbolic, e.arrays))
    any_y, _ = jax.eval_shape(function(case), any_e)
    program = export.export(jax.jit(value_and_gradients(case)))(any_e, any_y.update(dtype=jnp.float32))
    outputs, gradients = program.call(e, cotangent(case))
    assert_close(outputs, single(case)[0])
    assert_close(gradients, single(case)[1], condition=10)


@every_case
def test_sharded_equals_single(case):
    mesh = Mesh(np.array(jax.devices()), ("devices",), axis_types=(AxisType.Auto,))
    share = NamedSharding(mesh, shared_axis(case))
    e, g = example(case), cotangent(case)
    e, g = e._replace(x=jax.device_put(e.x, share)), jax.device_put(g, share)

    (y, state), (g_params, g_x) = jax.jit(value_and_gradients(case))(e, g)
    outputs, gradients = single(case)
    assert_close((y, state), outputs)
    assert_close((g_params, g_x), gradients, condition=10)

    for array in (y, g_x):
        assert array.sharding.is_equivalent_to(share, array.ndim)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves((state, g_params)))


def shared_axis(case):
    """Shard the first reduced axis that eight devices can share."""
    axis = next(a for a in case.reduced if case.shape[a] % 8 == 0)
    return PartitionSpec(*(["devices" if a == axis else None for a in range(len(case.shape))]))


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["batch", "space", "features"])
@pytest.mark.parametrize("train", [True, False])
def test_sharded_over_an_explicit_mesh(train, axis):
    """The default of `jax.make_mesh`, in which the sharding is part of the type of every intermediate value."""
    case = Case("explicit", {"epsilon": 0.1}, (8, 16, 8), train)
    mesh = Mesh(np.array(jax.devices()), ("devices",), axis_types=(AxisType.Explicit,))
    share = NamedSharding(mesh, PartitionSpec(*[None] * axis, "devices"))
    e = example(case)
    y, state = jax.jit(function(case))(e._replace(x=jax.device_put(e.x, share)))
    assert_close((y, state), expected(case, e))
    assert y.sharding.is_equivalent_to(share, y.ndim)


@pytest.mark.parametrize("transform", [jax.vmap, jax.jit, jax.checkpoint], ids=lambda transform: transform.__name__)
def test_transformations_nest_in_a_scan(transform):
    """Gradients inside a transformed step inside a scan, as in a training loop."""
    case = Case("nested", {"momentum": 0.5})
    members = 2

    def batch(t):
        return stack(example(case, seed=10 * t + member) for member in range(members))

    def one(state, e):
        (_, state), (_, g_x) = value_and_gradients(case)(e._replace(state=state), cotangent(case))
        return state, g_x

    step = transform(jax.vmap(one) if transform is not jax.vmap else one)
    state, g_x = jax.lax.scan(step, batch(0).state, stack(batch(t) for t in range(3)))
    for member in range(members):
        alone = example(case, seed=member).state
        for t in range(3):
            alone, g_alone = one(alone, example(case, seed=10 * t + member))
            assert_close(g_x[t, member], g_alone, condition=10)
        assert_close(jax.tree.map(lambda leaf, m=member: leaf[m], state), alone)


def stack(trees):
    """The trees stacked along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
