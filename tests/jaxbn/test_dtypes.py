"""Every variant of `cases.py` in every type: results in the type asked for, statistics in float32 or wider.

float32 is tested by all of `test_contract.py`, float64 and complex128 by `test_gradients.py`.
"""

import inspect
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import CASES, example, expected, function
from closeness import assert_close

from jaxbn import BatchNormParams, BatchNormState, _normalize, batch_norm, init

TYPES = {  # for each type of x, the type of the mean and that of the variance
    "bfloat16": ("float32", "float32"),
    "float16": ("float32", "float32"),
    "float64": ("float64", "float64"),
    "complex64": ("complex64", "float32"),
}


SOME = ("3-D", "channels first", "untracked", "evaluation", "mask of entries", "ghost batches", "residual")
COMBINATIONS = [
    pytest.param(case, dtype, id=f"{case.name}-{dtype}")
    for case in CASES
    for dtype in TYPES
    if dtype == "bfloat16" or case.name in SOME
]


@pytest.mark.parametrize(("case", "dtype"), COMBINATIONS)
def test_values_and_types(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        e = example(case, dtype)
        y, state = jax.jit(function(case))(e)
        y_oracle, state_oracle = expected(case, e)
        assert y.dtype == case.options.get("dtype", dtype)
        assert_close(y, y_oracle)
        assert_close(state, state_oracle)
        if case.updates:
            assert tuple(a.dtype.name for a in state) == (*TYPES[dtype], "int32")


@pytest.mark.parametrize("dtype", [*TYPES, "float32"])
def test_gradients_have_the_types_of_what_they_are_of(dtype):
    case = CASES[0]
    with jax.enable_x64(dtype == "float64"):
        e = example(case, dtype)
        outputs, pull = jax.vjp(lambda params, x: function(case)(e._replace(params=params, x=x))[0], e.params, e.x)
        gradients = pull(jnp.ones_like(outputs))
        assert jax.tree.map(jnp.result_type, gradients) == jax.tree.map(jnp.result_type, (e.params, e.x))


@pytest.mark.parametrize("mean", [0, 16, 256])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_in_half_precision(dtype, mean):
    """All is computed in float32 and rounded once, even where the terms of the gradient are larger than their sum."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1, 2, (64, 5, 4)), dtype)
    g = jnp.asarray(rng.normal(mean, 1, x.shape), dtype)
    params = BatchNormParams(jnp.asarray(rng.uniform(0.5, 2, 4), jnp.float32), jnp.zeros(4))
    _, pull = jax.vjp(lambda params, x: batch_norm(params, None, x, True)[0], params, x)
    g_params, g_x = pull(g)
    exact = oracle.gradients(params, x, g)
    terms = 2 * np.abs(oracle.wide(g)).max()  # γ / σ < 2
    within = jnp.finfo(dtype).eps / 2 * np.abs(exact.x).max() + 4 * jnp.finfo(jnp.float32).eps * terms
    np.testing.assert_allclose(oracle.wide(g_x), exact.x, rtol=0, atol=within)
    assert_close(g_params, (exact.scale, exact.bias), condition=10 * (1 + mean))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"activation": "silu", "max_pool": partial(nn.max_pool, window_shape=(1,), strides=(1,))},
        {"ghost_batch_size": 16},
        {"mask": np.arange(64).reshape(64, 1, 1) % 5 > 0},
        {"residual": np.random.default_rng(1).normal(size=(64, 5, 4)), "activation": "tanh"},
    ],
    ids=" ".join,
)
def test_each_path_rounds_the_gradient_once(options, mode):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1, 2, (64, 5, 4)), jnp.bfloat16)
    g = jnp.asarray(rng.normal(256, 1, x.shape), jnp.bfloat16)

    def gradient(x):
        given: dict[str, Any] = {k: jnp.asarray(v, jnp.bfloat16) if k == "residual" else v for k, v in options.items()}

        def function(x):
            return batch_norm(*init(4), x, True, **given)[0]

        if mode == "forward":
            return oracle.wide(jax.jvp(function, (x,), (g.astype(x.dtype),))[1])
        y, pull = jax.vjp(function, x)
        return oracle.wide(pull(g.astype(y.dtype))[0])

    rounded, wide = gradient(x), gradient(x.astype(jnp.float32))
    within = jnp.finfo(jnp.bfloat16).eps / 2 * np.abs(wide).max() + 4 * jnp.finfo(jnp.float32).eps * 256
    np.testing.assert_allclose(rounded, wide, rtol=0, atol=within)


def test_evaluation_has_no_carrier_and_no_platform():
    """What nothing reads, and a choice of platform, would remain in programs that are exported before compilation."""
    x = jnp.ones((4, 3), jnp.bfloat16)
    training, evaluation = (
        str(jax.make_jaxpr(lambda x, train=train: batch_norm(*init(3), x, train)[0])(x)) for train in (True, False)
    )
    for word in ("wider", "platform_index"):
        assert word in training
        assert word not in evaluation


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_are_not_taken_in_half_precision(dtype):
    """4096 ones and one 3 in a channel: in half precision the sum would stop growing."""
    x = jnp.ones((4096, 1), dtype).at[17].set(3)
    _, state = batch_norm(*init(1), x, True, momentum=0.0)
    assert_close(state.mean, np.asarray([1 + 2 / 4096]))
    assert_close(state.var, np.asarray([4 / 4096 * (1 - 1 / 4096)]))


@pytest.mark.parametrize(("x", "result"), [("float32", "float16"), ("bfloat16", "float32"), ("float32", "complex64")])
@pytest.mark.parametrize("train", [True, False])
def test_the_result_may_have_another_type(x, result, train):
    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, (8, 3)), x)
    y, _ = batch_norm(*init(3), x, train, dtype=result)
    assert y.dtype == result
    assert_close(y, oracle.batch_norm(*init(3), x, train)[0].astype(oracle.wide(y).dtype))


def test_a_wider_result_is_rounded_once():
    """bfloat16 in, float32 out: as exact as float32, not as bfloat16."""
    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, (64, 3)), jnp.bfloat16)
    y, _ = batch_norm(*init(3), x, True, dtype=jnp.float32)
    assert_close(y, oracle.batch_norm(*init(3), x, True)[0])


@pytest.mark.parametrize("train", [True, False])
def test_complex_input_with_the_state_that_init_makes_by_default(train):
    """A real mean of 0 is a complex mean of 0: nothing of the input's imaginary part is lost."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 3)) + 1j * rng.normal(1, 2, (8, 3)), jnp.complex64)
    params, state = init(3)
    y, new = batch_norm(params, state, x, train)
    y_oracle, new_oracle = oracle.batch_norm(params, state, x, train)
    assert_close(y, y_oracle)
    assert new is state if not train else (assert_close(new, new_oracle) is None)


def test_complex_parameters():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 3)) + 1j * rng.normal(1, 2, (8, 3)), jnp.complex64)
    params = BatchNormParams(*(jnp.asarray(rng.normal(size=3) + 1j * rng.normal(size=3), x.dtype) for _ in range(2)))
    for train in (True, False):
        _, state = init(3, dtype=jnp.complex64)
        assert_close(batch_norm(params, state, x, train), oracle.batch_norm(params, state, x, train), condition=2)


def test_real_is_the_special_case_of_complex():
    x = np.random.default_rng(0).normal(1, 2, (8, 3)).astype(np.float32)
    y, state = batch_norm(*init(3), x, True)
    y_complex, state_complex = batch_norm(*init(3, dtype=jnp.complex64), x.astype(np.complex64), True)
    widened = y.astype(jnp.complex64), state._replace(mean=state.mean.astype(jnp.complex64))
    assert_close((y_complex, state_complex), widened)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("narrow", ["params", "state", "both"])
@pytest.mark.parametrize("train", [True, False])
def test_float64_input_stays_float64(train, narrow):
    """Parameters and a state in float32, as `init` makes them by default, do not narrow the arithmetic."""
    x = np.random.default_rng(0).normal(1, 2, (8, 3))
    params, _ = init(3, dtype=jnp.float64 if narrow == "state" else jnp.float32)
    dtype = jnp.float64 if narrow == "params" else jnp.float32
    state = BatchNormState(jnp.asarray([0.1, 1, -2], dtype), jnp.asarray([1, 2, 0.3], dtype), jnp.asarray(1))
    y, _ = batch_norm(params, state, x, train)
    assert_close(y, oracle.batch_norm(params, state, x, train)[0])


@pytest.mark.usefixtures("x64")
def test_float32_stays_float32_where_float64_is_enabled():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
    y, state = batch_norm(*init(3), x, True)
    assert {a.dtype.name for a in (y, state.mean, state.var)} == {"float32"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_residual_is_read_on_a_gpu_bit_by_bit(dtype, monkeypatch):
    """Through operations on bits that cancel each other; derivatives of any order pass them by."""
    every = jax.lax.bitcast_convert_type(jnp.arange(2**16, dtype=jnp.uint16), jnp.dtype(dtype))
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda array, cuda, **_: cuda(array))
    monkeypatch.setattr(_normalize, "_through_bits", inspect.unwrap(_normalize._through_bits))  # jitted, it remembers
    through = jax.jit(_normalize._as_stored)
    assert "xor" in through.lower(every).as_text()
    np.testing.assert_array_equal(np.asarray(through(every)).view(np.uint16), np.arange(2**16))
    second = jax.jit(jax.grad(jax.grad(lambda r: _normalize._as_stored(r) ** 3)))
    assert second(jnp.asarray(2, dtype)) == 12


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_a_gpu_is_made_to_believe_is_true_for_all_numbers(dtype, monkeypatch):
    every = jax.lax.bitcast_convert_type(jnp.arange(2**16, dtype=jnp.uint16), jnp.dtype(dtype))
    monkeypatch.setattr(_normalize, "_on", lambda platforms: jnp.asarray("cuda" in platforms))
    believed = jax.jit(_normalize._true_beside)
    assert "or" in believed.lower(every).as_text()
    assert believed(every).shape == every.shape
    assert believed(every).all()
    assert believed(jnp.asarray([np.nan, np.inf, 0, -1], jnp.float32)).all()
    assert believed(jnp.ones(3, jnp.complex64)).all()
