"""For a traced `use_running_average`, the error of the modules says what to write instead."""

from typing import Any

import jax
import pytest
from equivalence import assert_same, batch
from flax import nnx

import jaxbn.linen
import jaxbn.nnx

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


def test_in_linen():
    """The error says what to write instead, and that works."""
    x = batch(shape=(8, 6))
    module: Any = jaxbn.linen.BatchNorm()
    variables = module.init(KEY, x, True)

    def apply(flag):
        return module.apply(variables, x, use_running_average=flag, mutable=["batch_stats"])

    with pytest.raises(TypeError, match=r"use_running_average must be a Python bool.*static.*jax\.lax\.cond.*apply"):
        jax.jit(apply)(True)
    choose = jax.jit(lambda flag: jax.lax.cond(flag, lambda: apply(True), lambda: apply(False)))
    for flag in (True, False):
        assert_same(choose(flag), jax.jit(apply, static_argnums=0)(flag))


def make() -> jaxbn.nnx.BatchNorm:
    return jaxbn.nnx.BatchNorm(6, rngs=nnx.Rngs(0))


def values(module: nnx.Module) -> dict[str, Any]:
    return nnx.to_pure_dict(nnx.state(module))


def test_in_nnx():
    """The error says what to write instead, and that works."""
    module, x = make(), batch(shape=(8, 6))
    with pytest.raises(TypeError, match=r"use_running_average must be a Python bool.*static.*nnx\.cond"):
        nnx.jit(lambda module, flag: module(x, use_running_average=flag))(module, True)

    @nnx.jit
    def choose(norm, x, use_running_average):
        return nnx.cond(
            use_running_average,
            lambda norm, x: norm(x, use_running_average=True),
            lambda norm, x: norm(x, use_running_average=False),
            norm,
            x,
        )

    for flag in (True, False):
        chosen, called = make(), make()
        assert_same((choose(chosen, x, flag), values(chosen)), (called(x, use_running_average=flag), values(called)))
