"""Explicit meshes, where the sharding is part of the type: all shardings of x, the vectors and the mask."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import pairs_along
from closeness import assert_close
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxbn import BatchNormParams, BatchNormState, BatchRenorm, batch_norm

SHAPE, FEATURES = (16, 8, 8), 8
PLACES = [P(), P("a"), P(None, "a"), P(None, None, "a"), P("a", "b"), P("a", None, "b"), P(None, "a", "b"),
          P(("a", "b")), P(None, None, ("b", "a"))]  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rows": {"mask": (16, 1, 1)},
    "entries": {"mask": SHAPE},
    "channels": {"mask": (FEATURES,)},
    "residual": {"mask": (16, 1, 1), "residual": SHAPE, "unbiased": True},
    "ghost batches": {"ghost_batch_size": 4},
    "large ghost batches": {"ghost_batch_size": 8, "mask": SHAPE},
    "renorm": {"renorm": BatchRenorm(3.0, 5.0), "mask": (16, 1, 1)},
    "pooling first": {"max_pool": pairs_along(1), "activation": "relu", "mask": (16, 1, 1)},
    "pooling last": {"max_pool": pairs_along(1), "activation": "silu"},
    "evaluation": {"train": False, "mask": (16, 1, 1)},
}


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)


def gradients(options: dict[str, Any]):
    """The gradients of params and x, with y and the state, as a function of all arrays."""
    arrays = {name for name in ("mask", "residual") if name in options}
    fixed = {"train": True} | {name: value for name, value in options.items() if name not in arrays}

    def loss(params, x, state, given):
        y, state = batch_norm(params, state, x, **fixed, **given)
        return jnp.sum(y * y) + jnp.sum(state.mean), (y, state)

    return jax.value_and_grad(loss, (0, 1), has_aux=True), sorted(arrays)


def entries_of(spec: P, ndim: int) -> tuple:
    return tuple(spec) + (None,) * (ndim - len(spec))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("placed_mask", [False, True], ids=["mask everywhere", "mask like x"])
def test_types_of_every_placement(name, placed_mask):
    """The result and its gradient are sharded like x, the state and the gradients of the vectors like the vectors."""
    run, arrays = gradients(VARIANTS[name])

    def array(shape, spec, dtype=jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh(), spec))

    for of_x in PLACES:
        if "pooling" in name and of_x == P(("a", "b")):
            continue  # a slice of the mask's own function
        full = entries_of(of_x, len(SHAPE))
        given = {}
        for kind in arrays:
            shape = VARIANTS[name][kind]
            axes = full[len(SHAPE) - len(shape) :]
            own = P(*(a if n > 1 else None for a, n in zip(axes, shape, strict=True)))
            placed = placed_mask or kind == "residual"
            given[kind] = array(shape, own if placed else P(), bool if kind == "mask" else jnp.float32)
        for of_vectors in (P(), P("a"), P(("b", "a"))):
            vector, x = array((FEATURES,), of_vectors), array(SHAPE, of_x)
            state = BatchNormState(vector, vector, array((), P(), jnp.int32))
            with jax.set_mesh(mesh()):
                (_, (y, new)), (g_params, g_x) = jax.eval_shape(run, BatchNormParams(vector, vector), x, state, given)
            if y.shape == x.shape:
                assert entries_of(y.sharding.spec, 3) == full
            assert entries_of(g_x.sharding.spec, 3) == full
            for leaf in (new.mean, new.var, *g_params):
                assert entries_of(leaf.sharding.spec, 1) == entries_of(of_vectors, 1)


@pytest.mark.parametrize(
    ("name", "of_x", "of_vectors"),
    [
        ("entries", P("a", None, "b"), P()),
        ("large ghost batches", P("a", None, "b"), P("a")),
        ("ghost batches", P(("a", "b")), P("a")),
        ("renorm", P(None, None, ("b", "a")), P()),
    ],
)
def test_numbers_of_some(name, of_x, of_vectors):
    """The numbers equal those on one device."""
    rng = np.random.default_rng(0)
    run, arrays = gradients(VARIANTS[name])
    params = BatchNormParams(jnp.linspace(-1.0, 1.5, FEATURES), jnp.linspace(-1.0, 1.0, FEATURES))
    state = BatchNormState(jnp.linspace(-1.0, 1.0, FEATURES), jnp.linspace(0.5, 2.0, FEATURES), jnp.asarray(4))
    x = jnp.asarray(rng.normal(1, 2, SHAPE), jnp.float32)
    given = {kind: jnp.asarray(rng.random(VARIANTS[name][kind]) < 0.7) for kind in arrays}
    outputs = jax.jit(run)(params, x, state, given)

    def put(array, spec):
        return jax.device_put(array, NamedSharding(mesh(), spec))

    placed = jax.tree.map(lambda v: put(v, of_vectors if v.ndim else P()), (params, state))
    with jax.set_mesh(mesh()):
        (loss, aux), of_both = jax.jit(run)(placed[0], put(x, of_x), placed[1], given)
    (expected_loss, expected), expected_gradients = outputs
    assert_close(aux, expected)
    assert_close((loss, of_both), (expected_loss, expected_gradients), condition=20)
