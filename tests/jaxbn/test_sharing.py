"""Statistics shared over named axes: those of the union, with one collective in each pass, for any shards."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxbn
from benchmarks.collectives import collectives

P = PartitionSpec
SHARDS, ROWS, FEATURES = 8, 6, 4
EVEN_AND_ODD = [[0, 2, 4, 6], [1, 3, 5, 7]]
PARAMS = jaxbn.BatchNormParams(jnp.linspace(0.5, 1.5, FEATURES), jnp.linspace(-1.0, 1.0, FEATURES))
STATE = jaxbn.BatchNormState(jnp.linspace(-1.0, 1.0, FEATURES), jnp.linspace(0.5, 2.0, FEATURES), jnp.int32(4))


def draw(ratio=0.0, seed=0, shape=(SHARDS, ROWS, FEATURES)):
    return (np.random.default_rng(seed).normal(size=shape) + ratio).astype(np.float32)


def masks():
    """Masks with a different total on each shard, none on the third, and weights above 1 on the last."""
    weights = np.ones((SHARDS, ROWS, 1), np.float32)
    weights[1, 2:] = 0
    weights[2] = 0
    weights[7] = 3
    return {"none": None, "bool": weights > 0, "weights": weights, "nothing": np.zeros_like(weights)}


def devices():
    return Mesh(np.array(jax.devices()), ("shards",), axis_types=(AxisType.Auto,))


def by_shard_map(check_vma):
    """Map over the first axis with `shard_map`; the state is replicated unless there are groups."""

    def transform(function, *, grouped=False):
        def one(*arguments):
            return jax.tree.map(lambda a: a[None], function(*jax.tree.map(lambda a: a[0], arguments)))

        if grouped:
            return jax.jit(
                jax.shard_map(one, mesh=devices(), in_specs=P("shards"), out_specs=P("shards"), check_vma=check_vma)
            )

        def replicated(*arguments):
            y, state = function(*jax.tree.map(lambda a: a[0], arguments))
            return y[None], state

        specs = {"in_specs": P("shards"), "out_specs": (P("shards"), P())}
        return jax.jit(jax.shard_map(replicated, mesh=devices(), check_vma=check_vma, **specs))

    return transform


def by_vmap(function, *, grouped=False):
    return jax.jit(jax.vmap(function, axis_name="shards", out_axes=0 if grouped else (0, None)))


def by_pmap(function, *, grouped=False):
    return jax.pmap(function, axis_name="shards", out_axes=0 if grouped else (0, None))


MAPS = {"shard_map": by_shard_map(True), "shard_map unchecked": by_shard_map(False), "vmap": by_vmap, "pmap": by_pmap}
every_map = pytest.mark.parametrize("transform", MAPS.values(), ids=MAPS.keys())
both_checks = pytest.mark.parametrize("check_vma", [True, False], ids=["checked", "unchecked"])


def shared(**options):
    return lambda x, *mask: jaxbn.batch_norm(
        PARAMS, STATE, x, True, axis_name="shards", mask=mask[0] if mask else None, **options
    )


def assert_union(x, mask, y, state, **options):
    """Assert that the state, and the outputs of the entries that count, are those of the union."""
    answers = oracle.batch_norm_shards(PARAMS, STATE, list(x), True, masks=mask, **options)
    counts = np.broadcast_to(True if mask is None else mask > 0, x.shape)
    assert np.isfinite(y).all()
    for i, (expected, _) in enumerate(answers):
        assert_close(jnp.where(counts[i], y[i], 0), np.where(counts[i], expected, 0))
    return answers


@every_map
@pytest.mark.parametrize("mask", masks().values(), ids=masks().keys())
@pytest.mark.parametrize("ratio", [0, 1e3, 1e6])
def test_statistics_are_those_of_the_union(transform, mask, ratio):
    x = draw(ratio)
    given = (x,) if mask is None else (np.where(np.broadcast_to(mask, x.shape) > 0, x, np.nan), mask)
    if mask is not None and not mask.any():
        given = (x, mask)
    y, state = transform(shared(momentum=0.5))(*given)
    answers = assert_union(x, mask, y, state, momentum=0.5)
    expected = answers[0][1]
    assert_close(state.mean, expected.mean)
    assert_close(state.var, expected.var, size=0)
    assert int(state.count) == 4 + (mask is None or bool(mask.any()))


@pytest.mark.parametrize("transform", [MAPS[name] for name in ("shard_map", "shard_map unchecked", "vmap")])
@pytest.mark.parametrize("mask", [None, masks()["weights"]], ids=["all", "weights"])
def test_groups_share_among_themselves(transform, mask):
    x = draw(1e6)
    given = (x,) if mask is None else (x, mask)
    y, state = transform(shared(axis_index_groups=EVEN_AND_ODD), grouped=True)(*given)
    for i, (_, expected) in enumerate(assert_union(x, mask, y, state, axis_index_groups=EVEN_AND_ODD)):
        assert_close(state.mean[i], expected.mean)
        assert_close(state.var[i], expected.var, size=0)


@every_map
def test_one_value_a_shard_is_enough(transform):
    x = draw(1e6, shape=(SHARDS, FEATURES))
    y, _ = transform(shared())(x)
    expected, _ = oracle.batch_norm(PARAMS, STATE, x, True)
    assert_close(y, expected)


@pytest.mark.parametrize("mask", [None, masks()["weights"]], ids=["all", "weights"])
@pytest.mark.parametrize("name", ["shard_map", "shard_map unchecked", "vmap"])
def test_gradients_are_those_of_the_union(name, mask):
    """Gradients of the sum of g·y over all shards; without `check_vma`, each shard has its part of the parameters'."""
    x, g = draw(1e3), draw(seed=1)
    given = () if mask is None else (mask,)

    def local(params, x, g, *mask):
        options: dict[str, Any] = {"mask": mask[0]} if mask else {}
        y, _ = jaxbn.batch_norm(params, STATE, x, True, axis_name="shards", activation="tanh", **options)
        return jnp.sum(g * y)

    def whole(params, x):
        flat = x.reshape(-1, FEATURES)
        options: dict[str, Any] = {} if mask is None else {"mask": jnp.asarray(mask).reshape(-1, 1)}
        y, _ = jaxbn.batch_norm(params, STATE, flat, True, activation="tanh", **options)
        return jnp.sum(g.reshape(flat.shape) * y)

    expected = jax.jit(jax.grad(whole, (0, 1)))(PARAMS, x)
    if name == "vmap":
        actual = jax.jit(
            jax.grad(lambda p, x: jax.vmap(partial(local, p), axis_name="shards")(x, g, *given).sum(), (0, 1))
        )(PARAMS, x)
    else:
        checked = name == "shard_map"

        def one(params, x, g, *mask):
            arguments = [a[0] for a in (x, g, *mask)]
            of_params, of_x = jax.grad(local, (0, 1))(params, *arguments)
            if not checked:
                of_params = jax.lax.psum(of_params, "shards")
            return of_params, of_x[None]

        specs = (P(), *(P("shards"),) * (2 + len(given)))
        mapped = jax.shard_map(one, mesh=devices(), in_specs=specs, out_specs=(P(), P("shards")), check_vma=checked)
        actual = jax.jit(mapped)(PARAMS, x, g, *given)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()))


def counted(compiled):
    """The bytes of each collective of a compiled program."""
    return collectives(compiled.as_text())


@both_checks
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("options", [{}, {"axis_index_groups": EVEN_AND_ODD}], ids=["one group", "groups"])
def test_one_collective_forward_and_one_backward(check_vma, masked, options):
    x, g, mask = draw(), draw(seed=1), masks()["bool"]
    given = (x, mask) if masked else (x,)
    forward = by_shard_map(check_vma)(shared(activation="relu", **options), grouped=True)
    assert len(counted(forward.lower(*given).compile())) == 1

    def step(params, g, *arguments):
        def outputs(params, x):
            return jaxbn.batch_norm(
                params, STATE, x, True, axis_name="shards", mask=arguments[1][0] if masked else None, **options
            )

        y, pull, state = jax.vjp(outputs, params, arguments[0][0], has_aux=True)
        return y[None], jax.tree.map(lambda v: v[None], state), pull(g[0])[1][None]

    mapped = jax.shard_map(
        step,
        mesh=devices(),
        in_specs=(P(), *(P("shards"),) * (1 + len(given))),
        out_specs=P("shards"),
        check_vma=check_vma,
    )
    assert len(counted(jax.jit(mapped).lower(PARAMS, g, *given).compile())) == 2


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("shape", [(16, 3, 3, 8), (64, 8), (64, 8, 8, 16), (128, 512)], ids=str)
def test_plain_jit_reduces_all_over_devices(axis_type, shape):
    """One all-reduce for the sums, and one in the backward pass; those of a better guess are in a loop, seldom run."""
    mesh = Mesh(np.array(jax.devices()), ("shards",), axis_types=(axis_type,))
    share = NamedSharding(mesh, P("shards"))
    params, state = jaxbn.init(shape[-1])
    x = draw(1e6, shape=shape)
    placed = jax.device_put(x, share)

    def forward(x):
        return jaxbn.batch_norm(params, state, x, True)

    def step(params, x):
        return jax.value_and_grad(lambda p, x: jnp.sum(jnp.tanh(jaxbn.batch_norm(p, state, x, True)[0])), (0, 1))(
            params, x
        )

    compiled = jax.jit(forward).lower(placed).compile()
    assert counted(compiled) == [4 * 2 * shape[-1]]
    y, new_state = compiled(placed)
    expected, expected_state = oracle.batch_norm(params, state, x, True)
    assert_close(y, expected)
    assert_close(new_state.var, expected_state.var)
    assert new_state.mean.sharding.is_fully_replicated
    assert len(counted(jax.jit(step).lower(params, placed).compile())) == 2


def test_two_axes_share_as_one():
    x = draw(shape=(4, 2, ROWS, FEATURES))
    inner = jax.vmap(lambda x: jaxbn.batch_norm(PARAMS, STATE, x, True, axis_name=("a", "b")), axis_name="b")
    y, state = jax.vmap(inner, axis_name="a")(x)
    expected, expected_state = oracle.batch_norm(PARAMS, STATE, x.reshape(-1, FEATURES), True)
    assert_close(y.reshape(-1, FEATURES), expected)
    assert_close(state.mean[0, 0], expected_state.mean)


def test_complex_shards():
    x = draw() + 1j * draw(seed=1)
    params, state = jaxbn.init(FEATURES, dtype=jnp.complex64)
    y, new_state = jax.vmap(
        lambda x: jaxbn.batch_norm(params, state, x, True, axis_name="shards"), axis_name="shards", out_axes=(0, None)
    )(x.astype(np.complex64))
    expected, expected_state = oracle.batch_norm(params, state, x.reshape(-1, FEATURES), True)
    assert_close(y.reshape(-1, FEATURES), expected)
    assert_close((new_state.mean, new_state.var), (expected_state.mean, expected_state.var))


def test_evaluation_needs_no_named_axis():
    x = draw()[0]
    y, state = jaxbn.batch_norm(PARAMS, STATE, x, False, axis_name="shards")
    assert state is STATE
    assert_close(y, oracle.batch_norm(PARAMS, STATE, x, False)[0])


def test_an_unbound_name_says_where_it_can_be_bound():
    message = r"axis_name must name a mapped axis, and .nowhere. is not bound here.*jax\.shard_map.*jax\.vmap.*jax\.jit"
    with pytest.raises(ValueError, match=message):
        jaxbn.batch_norm(PARAMS, STATE, draw()[0], True, axis_name="nowhere")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1], [2, 3]], "must divide the indices 0 to 7"),
        ([[0, 1, 2], [3, 4, 5, 6, 7]], "groups of equal size"),
        ([[0, 1, 2, 3], [3, 4, 5, 6]], "each index in one group"),
    ],
)
def test_groups_divide_the_axis(groups, message):
    with pytest.raises(ValueError, match=message):
        jax.vmap(shared(axis_index_groups=groups), axis_name="shards")(draw())


def test_groups_need_a_name():
    with pytest.raises(ValueError, match=r"axis_index_groups needs axis_name.*Pass both"):
        jaxbn.batch_norm(PARAMS, STATE, draw()[0], True, axis_index_groups=[[0, 1]])


def test_a_mapped_batch_takes_no_square_of_its_size():
    """The batch is the axis of `jax.vmap`, with one example per shard, as in Equinox."""
    examples, channels = 256, 64
    params, state = jaxbn.init(channels)

    def loss(x):
        norm = partial(jaxbn.batch_norm, params, state, train=True, axis_name="batch")
        return jnp.sin(jax.vmap(lambda x: norm(x)[0], axis_name="batch")(x)).sum()

    x = jax.ShapeDtypeStruct((examples, 3, channels), jnp.float32)
    analysis = jax.jit(jax.grad(loss)).lower(x).compile().memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < examples**2 * channels * 4 / 4
