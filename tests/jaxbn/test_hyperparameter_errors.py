"""Numbers and schedules out of range or of the wrong kind: the error says what must hold and what arrived."""

import re
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbn import BatchRenorm, batch_norm, batch_renorm_ramp, debiased, init


def call(**options: Any):
    return batch_norm(*init(3), jnp.ones((4, 3)), True, **options)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, 90, float("nan"), float("inf"), -float("inf")])
def test_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], the weight of the old.*PyTorch.*got"):
        call(momentum=momentum)


@pytest.mark.parametrize("momentum", ["0.9", None, True, [0.9], 0.9j, np.True_, np.array([True] * 3), np.array(0.9j)])
def test_momentum_of_another_type(momentum):
    with pytest.raises(TypeError, match=r"momentum must be a number in \[0, 1\], or an array.*, or a function.*; got"):
        call(momentum=momentum)


@pytest.mark.parametrize("momentum", [np.array([0.5, 0.5, 1.5]), np.array([0.5, np.nan, 0.5]), np.float32(-0.5)])
def test_momentum_by_channel_out_of_range(momentum):
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\].*; got"):
        call(momentum=momentum)


@pytest.mark.parametrize("shape", [(4,), (1,), (1, 3)])
@pytest.mark.parametrize("traced", [False, True])
def test_momentum_of_another_shape(shape, traced):
    run = (
        (lambda momentum: call(momentum=momentum)) if not traced else jax.jit(lambda momentum: call(momentum=momentum))
    )
    message = rf"one per channel, an array of shape \(3,\); got an array of float32 of shape {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        run(np.full(shape, 0.5, np.float32))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, TypeError, r"must be a number in \[0, 1\], or an array with one per channel; got None"),
        (2.0, ValueError, r"must be in \[0, 1\], .*; got 2\.0"),
        (np.ones(2, np.float32), ValueError, r"must be one number, .*of shape \(3,\); got .*\(2,\)"),
    ],
    ids=["nothing", "above 1", "another shape"],
)
def test_values_of_a_momentum_schedule(value, error, message):
    with pytest.raises(error, match=f"the value of the momentum schedule {message}"):
        call(momentum=lambda _: value)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, TypeError, r"must be a number, or a function .*; got None"),
        (0.5, ValueError, r"must be at least 1; got 0\.5"),
        (np.ones(3, np.float32), TypeError, r"must be a number, .*; got an array of float32 of shape \(3,\)"),
    ],
    ids=["nothing", "below 1", "a vector"],
)
def test_values_of_a_renorm_schedule(value, error, message):
    with pytest.raises(error, match=f"the value of the schedule r_max {message}"):
        call(renorm=BatchRenorm(lambda _: value, 1.0))


@pytest.mark.parametrize("epsilon", [-1e-5, float("nan"), float("inf")])
def test_epsilon_out_of_range(epsilon):
    with pytest.raises(ValueError, match=r"epsilon must be finite and at least 0, such as 1e-5; got"):
        call(epsilon=epsilon)


@pytest.mark.parametrize("epsilon", ["1e-5", None, True, 1j, np.ones(3), np.array(1j), [1e-5]])
def test_epsilon_of_another_type(epsilon):
    with pytest.raises(TypeError, match=r"epsilon must be a real number; got"):
        call(epsilon=epsilon)


@pytest.mark.parametrize("name", ["momentum", "epsilon"])
def test_any_kind_of_real_number_will_do(name):
    """Every value that passes the check also works."""
    answers: list[Any] = []
    for number in (0.75, Fraction(3, 4), np.float32(0.75), np.float16(0.75), np.array(0.75), jnp.bfloat16(0.75)):
        options: dict[str, Any] = {name: number}
        answers.append(call(**options))
    for answer in answers[1:]:
        jax.tree.map(np.testing.assert_array_equal, answer, answers[0])


@pytest.mark.parametrize("decay", [1, -0.1, float("nan")])
def test_debiased_out_of_range(decay):
    with pytest.raises(ValueError, match=r"decay must be at least 0 and below 1, such as 0\.99; got"):
        debiased(decay)


def test_schedules_are_made_of_known_numbers():
    with pytest.raises(
        TypeError, match=r"decay must be a number that is known while tracing.*; got an array of float32"
    ):
        jax.jit(debiased)(0.9)
    with pytest.raises(TypeError, match=r"decay must be a number .*; got '0\.9'"):
        debiased("0.9")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"r_max and d_max must be numbers that are known while tracing; got"):
        jax.jit(lambda r_max: batch_renorm_ramp(r_max=r_max))(3.0)


@pytest.mark.parametrize("ramp", [{"plain": 10, "r_steps": 10}, {"plain": -1}, {"r_max": 0.5}, {"d_max": -1}])
def test_ramps_out_of_range(ramp):
    with pytest.raises(ValueError, match=r"plain must be at least 0, and below r_steps|[rd]_max must be at least"):
        batch_renorm_ramp(**ramp)
