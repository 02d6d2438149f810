"""Momentum, epsilon and the bounds of renormalization as arrays: a sweep under `vmap` is a loop over numbers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from flax import nnx

import jaxbn.linen
import jaxbn.nnx
from jaxbn import BatchNormParams, BatchRenorm, batch_norm, diagnostics, fold, init

MOMENTA = np.array([0.0, 0.25, 0.99], np.float32)
EPSILONS = np.array([1e-3, 0.1, 10.0], np.float32)


def batch(seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal([1.0, -2.0, 5.0], [1.0, 3.0, 0.5], (8, 3)), jnp.float32)


def looped(run) -> Any:
    """The results of a loop over the numbers, stacked."""
    found = [run(float(momentum), float(epsilon)) for momentum, epsilon in zip(MOMENTA, EPSILONS, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def test_a_sweep_of_the_function():
    def run(momentum, epsilon):
        y, state = batch_norm(*init(3), batch(), True, momentum=momentum, epsilon=epsilon)
        return y, state, batch_norm(init(3)[0], state, batch(1), False, epsilon=epsilon)[0]

    assert_close(jax.vmap(run)(MOMENTA, EPSILONS), looped(run))


@pytest.mark.parametrize("norm", [jaxbn.linen.BatchNorm, nn.BatchNorm], ids=["ours", "Flax"])
def test_a_sweep_of_linen_modules(norm):
    def run(momentum, epsilon):
        module: Any = norm(use_running_average=False, momentum=momentum, epsilon=epsilon)
        return module.apply(variables, batch(), mutable=["batch_stats"])

    variables = norm(use_running_average=False).init(jax.random.key(0), batch())
    with jax.numpy_rank_promotion("allow"):  # Flax broadcasts
        assert_close(jax.vmap(run)(MOMENTA, EPSILONS), looped(run))


@pytest.mark.parametrize("norm", [jaxbn.nnx.BatchNorm, nnx.BatchNorm], ids=["ours", "Flax"])
def test_a_sweep_of_nnx_modules(norm):
    def run(momentum, epsilon):
        module = norm(3, momentum=momentum, epsilon=epsilon, rngs=nnx.Rngs(0))
        return module(batch()), module.mean[...], module.var[...]

    with jax.numpy_rank_promotion("allow"):  # Flax broadcasts
        assert_close(jax.vmap(run)(MOMENTA, EPSILONS), looped(run))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_momentum_by_channel_in_the_modules(kind):
    """The modules accept it, as Flax's do."""
    answers = []
    for norm in {"linen": (jaxbn.linen.BatchNorm, nn.BatchNorm), "nnx": (jaxbn.nnx.BatchNorm, nnx.BatchNorm)}[kind]:
        if kind == "linen":
            module: Any = norm(use_running_average=False, momentum=MOMENTA)
            _, updates = module.apply(module.init(jax.random.key(0), batch()), batch(), mutable=["batch_stats"])
            answers.append(jax.tree.leaves(updates))
        else:
            module = norm(3, momentum=MOMENTA, rngs=nnx.Rngs(0))
            with jax.numpy_rank_promotion("allow"):  # Flax broadcasts
                module(batch())
            answers.append([module.mean[...], module.var[...]])
    assert_close(*answers, condition=10)  # Flax's variance is E[x²] − E[x]²: here to 1e-5


def test_a_sweep_of_bounds():
    def run(r_max, d_max):
        return batch_norm(*init(3), batch(), True, renorm=BatchRenorm(r_max, d_max))

    bounds = np.array([[1.0, 0.0], [1.5, 0.5], [3.0, 5.0]], np.float32)
    found = [run(float(r_max), float(d_max)) for r_max, d_max in bounds]
    assert_close(jax.vmap(run)(*bounds.T), jax.tree.map(lambda *leaves: jnp.stack(leaves), *found))


def test_bounds_of_an_nnx_module_as_arrays():
    def run(r_max, d_max):
        module = jaxbn.nnx.BatchNorm(3, renorm=BatchRenorm(r_max, d_max), rngs=nnx.Rngs(0))
        return nnx.jit(lambda module, x: module(x))(module, batch())

    assert_close(run(jnp.float32(1.5), 0.5), run(1.5, 0.5))


def test_a_schedule_may_return_one_value_per_channel():
    def schedule(count):
        return jnp.where(count > 0, 1.0, MOMENTA)

    _, state = batch_norm(*init(3), batch(), True, momentum=schedule)
    assert_close(state, batch_norm(*init(3), batch(), True, momentum=MOMENTA)[1])


def test_epsilon_is_differentiated():
    """dy/dε = −(x − μ)/2 (σ² + ε)^(−3/2)."""
    x = batch()
    _, derivative = jax.jvp(lambda epsilon: batch_norm(*init(3), x, True, epsilon=epsilon)[0], (0.1,), (1.0,))
    exact = np.asarray(x, np.float64)
    expected = -(exact - exact.mean(0)) / 2 * (exact.var(0) + 0.1) ** -1.5
    assert_close(derivative, expected, condition=10)


@pytest.mark.usefixtures("x64")
def test_an_epsilon_of_another_type_changes_no_type():
    x = batch()
    for dtype in (jnp.float64, jnp.bfloat16):
        y, state = jax.jit(lambda epsilon, momentum: batch_norm(*init(3), x, True, epsilon=epsilon, momentum=momentum))(
            jnp.asarray(0.5, dtype), jnp.asarray(0.5, dtype)
        )
        assert y.dtype == state.mean.dtype == state.var.dtype == jnp.float32
        assert_close((y, state), batch_norm(*init(3), x, True, epsilon=0.5, momentum=0.5))


def test_the_tools_take_a_traced_epsilon():
    params, state = BatchNormParams(jnp.ones(3), jnp.zeros(3)), init(3)[1]
    kernel = jnp.ones((2, 3))
    for tool in (
        lambda epsilon: fold(params, state, kernel, epsilon=epsilon),
        lambda epsilon: diagnostics(params, state, batch(), epsilon=epsilon)[:3],
    ):
        assert_close(jax.jit(tool)(0.5), tool(0.5))
