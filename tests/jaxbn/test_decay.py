"""Weight decay leaves norms alone, wherever they are."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close
from flax import nnx

import jaxbn.linen
from jaxbn import BatchNormParams, decay_mask, init

KEY = jax.random.key(0)
ARRAY = jnp.ones(3)
Params: Any = BatchNormParams  # of bools too


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly."""


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="dense")(x)
        for name, norm in {
            "batch": jaxbn.linen.BatchNorm(use_running_average=False, name="batch"),
            "no_scale": jaxbn.linen.BatchNorm(use_running_average=False, use_scale=False, name="no_scale"),
            "no_bias": jaxbn.linen.BatchNorm(use_running_average=False, use_bias=False, name="no_bias"),
            "flax": nn.BatchNorm(use_running_average=False, name="flax"),
            "layer": nn.LayerNorm(name="layer"),
            "group": nn.GroupNorm(2, name="group"),
            "rms": nn.RMSNorm(name="rms"),
        }.items():
            x = norm(x) + len(name)
        return nn.Dense(2, use_bias=False, name="logits")(x)


EXPECTED = {
    "dense": {"kernel": True, "bias": True},
    "batch": {"scale": False, "bias": False},
    "no_scale": {"bias": False},
    "no_bias": {"scale": False},
    "flax": {"scale": False, "bias": False},
    "layer": {"scale": False, "bias": False},
    "group": {"scale": False, "bias": False},
    "rms": {"scale": False},
    "logits": {"kernel": True},
}


def test_haikus_offset_is_a_bias():
    params = {
        "network/~/batch_norm": {"scale": ARRAY, "offset": ARRAY},
        "network/~/no_scale": {"offset": ARRAY},
        "network/~/linear": {"w": ARRAY, "b": ARRAY},
        "network/~/embedding": {"w": ARRAY, "offset": ARRAY},
    }
    assert decay_mask(params) == {
        "network/~/batch_norm": {"scale": False, "offset": False},
        "network/~/no_scale": {"offset": False},
        "network/~/linear": {"w": True, "b": True},
        "network/~/embedding": {"w": True, "offset": True},
    }


def test_linen():
    params = Network().init(KEY, jnp.ones((8, 3)))["params"]
    assert decay_mask(params) == EXPECTED
    assert decay_mask(nn.FrozenDict(params)) == nn.FrozenDict(EXPECTED)
    assert decay_mask({"params": {"deeper": params}}) == {"params": {"deeper": EXPECTED}}
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), params)  # as scanned layers are
    assert decay_mask(stacked) == EXPECTED


def test_core_parameters_anywhere():
    params: Any = {
        "layers": [(ARRAY, init(3)[0]), (ARRAY, Params(None, ARRAY))],
        "last": Params(ARRAY, None),
    }
    assert decay_mask(params) == {
        "layers": [(True, Params(False, False)), (True, Params(None, False))],
        "last": Params(False, None),
    }
    assert decay_mask(init(3)[0]) == Params(False, False)


OTHERS = {
    "an array": (ARRAY, True),
    "nothing": ({}, {}),
    "modules by these names": (
        {"scale": {"kernel": ARRAY}, "bias": {"kernel": ARRAY}},
        {"scale": {"kernel": True}, "bias": {"kernel": True}},
    ),
    "scale beside others": ({"scale": ARRAY, "table": ARRAY}, {"scale": True, "table": True}),
    "a norm beside its scale": (
        {"scale": ARRAY, "inner": {"scale": ARRAY}},
        {"scale": True, "inner": {"scale": False}},
    ),
    "a module named value": ({"bias": {"value": {"kernel": ARRAY}}}, {"bias": {"value": {"kernel": True}}}),
    "means and variances of another kind": ({"mean": ARRAY, "var": ARRAY}, {"mean": True, "var": True}),
    "a mean beside a bias": ({"mean": ARRAY, "bias": ARRAY}, {"mean": True, "bias": True}),
}


@pytest.mark.parametrize(("params", "expected"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_norm(params, expected):
    assert decay_mask(params) == expected


class NNXNetwork(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.dense = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([nnx.LayerNorm(4, rngs=rngs)])

    def __call__(self, x):
        return self.blocks[0](self.norm(self.dense(x)))


def test_nnx():
    state = nnx.state(NNXNetwork(), nnx.Param)
    expected = {
        "dense": {"kernel": True, "bias": True},
        "norm": {"scale": False, "bias": False},
        "blocks": {0: {"scale": False, "bias": False}},
    }
    mask = decay_mask(state)
    assert jax.tree.structure(mask) == jax.tree.structure(state)
    assert nnx.to_pure_dict(mask) == expected
    assert decay_mask(nnx.to_pure_dict(state)) == expected
    whole = nnx.to_pure_dict(decay_mask(nnx.state(NNXNetwork())))
    assert whole["norm"] == dict.fromkeys(("scale", "bias", "mean", "var"), False)


@pytest.mark.parametrize("mask", ["function", "tree"])
def test_adamw_in_closed_form(mask):
    """Without gradient only decay acts: by the factor 1 − rate · decay per step, and not on norms."""
    params: Any = Network().init(KEY, jnp.ones((8, 3)))["params"]
    tx = optax.adamw(0.1, weight_decay=0.5, mask=decay_mask if mask == "function" else decay_mask(params))
    opt_state, new = tx.init(params), params
    for _ in range(3):
        updates, opt_state = tx.update(jax.tree.map(jnp.zeros_like, params), opt_state, new)
        new = optax.apply_updates(new, updates)
    for path, leaf in jax.tree.leaves_with_path(new):
        before = params[path[0].key][path[1].key]
        decayed = EXPECTED[path[0].key][path[1].key]
        assert_close(leaf, before * (0.95**3 if decayed else 1), condition=1 if decayed else 0)


def test_adamw_with_nnx():
    model: Any = NNXNetwork()
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, optax.adamw(0.1, weight_decay=0.5, mask=decay_mask), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, before))
    assert_close(model.dense.kernel[...], before["dense"]["kernel"][...] * 0.95)
    np.testing.assert_array_equal(model.norm.scale[...], before["norm"]["scale"][...])


def test_gradients_of_norms_still_count():
    params: Any = {"norm": {"scale": ARRAY, "bias": ARRAY}}
    tx = optax.chain(optax.add_decayed_weights(0.5, decay_mask), optax.sgd(1.0))
    updates: Any = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)[0]
    np.testing.assert_array_equal(updates["norm"]["scale"], -np.ones(3))
