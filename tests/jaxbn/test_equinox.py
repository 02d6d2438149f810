"""The Equinox layer beside `batch_norm` and beside Equinox's own, and the conversions between them."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

import jaxbn
from jaxbn import interop
from jaxbn.equinox import BatchNorm

SHAPE = (8, 3, 5)  # examples, channels, places
OWN: Any = partial(eqx.nn.BatchNorm, mode="batch")


@pytest.fixture(autouse=True)
def strict():
    """Equinox relies on implicit promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def batch(seed: int = 0, mean: float = 3.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(mean, 2, SHAPE), jnp.float32)


def make(norm: Any = BatchNorm, **options: Any) -> tuple[Any, eqx.nn.State]:
    return eqx.nn.make_with_state(norm)(SHAPE[1], axis_name="batch", **options)


def applied(layer: Any, x: jax.Array, state: eqx.nn.State, **options: Any) -> tuple[jax.Array, eqx.nn.State]:
    call = partial(layer, **options)
    return jax.vmap(call, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)


def test_trains_and_evaluates_as_the_function():
    layer, state = make(momentum=0.5, activation="relu", unbiased=True)
    params, expected = jaxbn.init(SHAPE[1])
    options: Any = {"axis": 1, "momentum": jaxbn.debiased(0.5), "activation": "relu", "unbiased": True}
    for seed in range(3):
        y, state = applied(layer, batch(seed), state)
        wanted, expected = jaxbn.batch_norm(params, expected, batch(seed), True, **options)
        assert_close(y, wanted)
    assert_close(state.get(layer.state_index), expected)
    wanted, _ = jaxbn.batch_norm(params, expected, batch(3), False, **options)
    y, after = applied(layer, batch(3), state, inference=True)
    assert_close(y, wanted)
    assert_close(after.get(layer.state_index), expected)
    assert_close(applied(eqx.nn.inference_mode(layer), batch(3), state)[0], wanted)


def test_beside_equinox():
    """The same in training; in evaluation, Equinox's variance is too large by m/(1 − m) after one step."""
    momentum = 0.9
    results = {}
    for name, norm in {"ours": BatchNorm, "own": OWN}.items():
        layer, state = make(norm, momentum=momentum)
        y, state = applied(layer, batch(), state)
        results[name] = y, applied(layer, batch(), state, inference=True)[0]
    assert_close(results["ours"][0], results["own"][0], condition=10)
    x = np.asarray(batch(), np.float64)
    mean, var = x.mean((0, 2), keepdims=True), x.var((0, 2), keepdims=True)
    assert_close(results["ours"][1], (x - mean) / np.sqrt(var + 1e-5), condition=4)
    assert_close(results["own"][1], (x - mean) / np.sqrt(var + momentum / (1 - momentum) + 1e-5), condition=10)


def test_exact_on_data_far_from_0():
    x = batch(mean=1e5)
    layer, state = make()
    y, _ = applied(layer, x, state)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean((0, 2), keepdims=True)) / np.sqrt(exact.var((0, 2), keepdims=True) + 1e-5)
    assert_close(y, exact)


def test_to_equinox_and_back():
    layer, state = make(momentum=0.9)
    for seed in range(20):
        _, state = applied(layer, batch(seed), state)
    running = state.get(layer.state_index)
    params = jaxbn.BatchNormParams(layer.weight, layer.bias)
    arrays: Any = interop.to_equinox(params, running, momentum=0.9)

    own, its = make(OWN, momentum=0.9)
    own = eqx.tree_at(lambda own: (own.weight, own.bias), own, (arrays["weight"], arrays["bias"]))
    for name in ("batch_counter", "batch_state_index"):
        its = its.set(getattr(own, name), jax.tree.map(jnp.asarray, arrays[name]))
    assert_close(
        applied(own, batch(30), its, inference=True)[0],
        applied(layer, batch(30), state, inference=True)[0],
        condition=10,
    )

    back = interop.from_equinox(arrays, momentum=0.9)
    assert_close(back.state, running, condition=10)
    state = state.set(layer.state_index, jax.tree.map(jnp.asarray, back.state))
    assert state.get(layer.state_index).count == 20


def test_gradients_and_options_of_a_call():
    layer, state = make()
    x, mask = batch(), jnp.asarray(np.random.default_rng(5).random((SHAPE[0], 1, SHAPE[2])) < 0.7)

    def loss(layer: Any) -> jax.Array:
        def call(x: jax.Array, mask: jax.Array) -> jax.Array:
            return layer(x, state, mask=mask, residual=x)[0]

        return jnp.sum(jnp.sin(jax.vmap(call, axis_name="batch")(x, mask)))

    def expected(params: jaxbn.BatchNormParams) -> jax.Array:
        y, _ = jaxbn.batch_norm(params, jaxbn.init(3)[1], x, True, axis=1, mask=mask, residual=x)
        return jnp.sum(jnp.sin(y))

    gradients = eqx.filter_grad(loss)(layer)
    wanted = jax.grad(expected)(jaxbn.init(3)[0])
    assert_close((gradients.weight, gradients.bias), tuple(wanted), condition=10, size=x.size)


def test_without_an_affine_part_and_in_half_precision():
    layer, state = make(channelwise_affine=False, dtype=jnp.bfloat16)
    assert layer.weight is None
    assert layer.bias is None
    y, state = applied(layer, batch().astype(jnp.bfloat16), state)
    assert y.dtype == jnp.bfloat16
    assert state.get(layer.state_index).mean.dtype == jnp.float32


@pytest.mark.parametrize("mode", ["ema", "legacy"])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match=r'mode must be "batch".*renorm=jaxbn\.BatchRenorm'):
        BatchNorm(3, "batch", mode=mode)


def test_a_name_that_is_not_bound():
    layer, state = make()
    with pytest.raises(ValueError, match="axis_name must name a mapped axis, and 'batch' is not bound"):
        layer(batch()[0], state)
