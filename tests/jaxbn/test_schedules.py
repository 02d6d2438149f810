"""Schedules are values: those with equal arguments are equal, hash alike, and can be pickled."""

import pickle
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxbn.linen
import jaxbn.nnx
from jaxbn import accumulated, batch_renorm_ramp, cumulative, debiased, interop

MAKE = {
    "cumulative": cumulative,
    "debiased": lambda: debiased(0.9),
    "debiased, from an array": lambda: debiased(np.float64(0.9)),  # pyright: ignore[reportArgumentType]
    "debiased by nothing": lambda: debiased(0),
    "accumulated": lambda: accumulated(0.9, 4),
    "accumulated, of a schedule": lambda: accumulated(cumulative(), 4),
    "ramp": batch_renorm_ramp,
    "PyTorch": lambda: interop.options_from_torch(None)["momentum"],
    "Haiku": lambda: interop.options_from_haiku(0.9)["momentum"],
    "Equinox": lambda: interop.options_from_equinox()["momentum"],
    "Equinox, ema": lambda: interop.options_from_equinox(mode="ema")["momentum"],
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_are_values(make):
    assert make() == make()
    assert hash(make()) == hash(make())
    assert pickle.loads(pickle.dumps(make())) == make()
    for schedule in make() if isinstance(make(), tuple) else (make(),):
        with pytest.raises(AttributeError):
            schedule.decay = 0.5


def test_differ_where_their_numbers_do():
    assert debiased(0.9) != debiased(0.99)
    assert debiased(0.0) != cumulative()
    assert batch_renorm_ramp() != batch_renorm_ramp(d_max=4.0)
    assert debiased(np.float64(0.9)) == debiased(0.9)  # pyright: ignore[reportArgumentType]


def test_equal_linen_modules_are_compiled_once():
    traces = []

    def step(module, variables, x):
        traces.append(module)
        return module.apply(variables, x, mutable=["batch_stats"])

    def make() -> nn.Module:
        return jaxbn.linen.BatchNorm(False, momentum=debiased(0.9), renorm=batch_renorm_ramp())

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    variables = make().init(jax.random.key(0), x)
    step = jax.jit(step, static_argnums=0)
    for _ in range(3):
        step(make(), variables, x)
    assert make() == make()
    assert len(traces) == 1


def test_an_nnx_norm_is_pickled_with_its_schedules():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    norm = jaxbn.nnx.BatchNorm(3, momentum=debiased(0.9), renorm=batch_renorm_ramp(), rngs=nnx.Rngs(0))
    norm(x)
    copy: Any = pickle.loads(pickle.dumps(norm))
    assert nnx.graphdef(copy) == nnx.graphdef(norm)
    np.testing.assert_array_equal(copy(x), norm(x))
    np.testing.assert_array_equal(copy.mean[...], norm.mean[...])
