"""Optimisers, schedules and clipping, against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close

from train.config.sections import PRESETS, OptimizerConfig
from train.training.optimizer import optimizer, schedule

CONSTANT = {"schedule": "constant", "learning_rate": 0.5}


def steps(config, gradients, params=None):
    """The update for each gradient."""
    tx = optimizer(config, 20)
    state, taken = tx.init(params if params is not None else gradients[0]), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        taken.append(updates)
    return taken


def test_sgd_subtracts_the_gradient_times_the_rate():
    taken = steps(OptimizerConfig(optimizer="sgd", **CONSTANT), [jnp.float32(3.0), jnp.float32(-1.0)])
    assert [float(each) for each in taken] == [-1.5, 0.5]


def test_momentum_carries_its_share_of_the_last_update():
    config = OptimizerConfig(optimizer="momentum", sgd_momentum=0.5, **CONSTANT)
    taken = steps(config, [jnp.float32(4.0), jnp.float32(0.0), jnp.float32(2.0)])
    assert [float(each) for each in taken] == [-2.0, -1.0, -1.5]


@pytest.mark.parametrize("epsilon", [1e-8, 1e-7, 1.0])
def test_the_first_step_of_adam_is_the_rate_but_for_epsilon(epsilon):
    """m̂ = g and v̂ = g² at the first step."""
    (taken,) = steps(OptimizerConfig(optimizer="adam", adam_epsilon=epsilon, **CONSTANT), [jnp.float32(0.25)])
    assert_close(taken, -0.5 * 0.25 / (0.25 + epsilon), condition=5)


def test_the_keras_preset_has_the_epsilon_of_keras():
    assert PRESETS["mnist-cnn-keras"].optimizer.adam_epsilon == 1e-7
    assert PRESETS["default"].optimizer.adam_epsilon == 1e-8


def test_adamw_decays_everything_but_scale_and_bias_of_the_norms():
    """Without a gradient Adam stands still, and what is subtracted is rate · decay · weight."""
    params = {
        "conv1": {"kernel": jnp.ones((3, 3, 1, 2))},
        "norm1": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "logits": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    }
    none = {layer: {name: jnp.zeros_like(leaf) for name, leaf in leaves.items()} for layer, leaves in params.items()}
    (taken,) = steps(OptimizerConfig(optimizer="adamw", weight_decay=0.25, **CONSTANT), [none], params)
    amounts = {(layer, name): set(np.ravel(leaf)) for layer, leaves in taken.items() for name, leaf in leaves.items()}
    assert amounts == {
        ("conv1", "kernel"): {-0.125},
        ("logits", "kernel"): {-0.125},
        ("norm1", "scale"): {0.0},
        ("norm1", "bias"): {0.0},
        ("logits", "bias"): {-0.125},
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [3.0, -12.0, 4.0]),
        ({"clip_norm": 100.0, "clip_value": 100.0}, [3.0, -12.0, 4.0]),
        ({"clip_norm": 6.5}, [1.5, -6.0, 2.0]),  # the norm is 13
        ({"clip_value": 2.0}, [2.0, -2.0, 2.0]),
        ({"clip_value": 2.0, "clip_norm": np.sqrt(3.0)}, [1.0, -1.0, 1.0]),
    ],
)
def test_gradients_are_clipped_by_value_and_then_by_norm(options, expected):
    (taken,) = steps(OptimizerConfig(optimizer="sgd", **CONSTANT, **options), [jnp.array([3.0, -12.0, 4.0])])
    assert_close(-taken / 0.5, np.asarray(expected))


def test_warm_up_goes_up_in_a_line_and_then_down_the_cosine():
    config = OptimizerConfig(schedule="warmup-cosine", learning_rate=0.5, warmup=0.25)
    rates = [float(jnp.asarray(schedule(config, 20)(t))) for t in range(20)]
    up = [0.5 * (t + 1) / 5 for t in range(5)]
    down = [0.25 * (1 + np.cos(np.pi * t / 15)) for t in range(15)]
    assert_close(rates, [*up, *down], condition=5, size=0)


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_warm_up_of_very_short_runs_has_rates(total_steps, warmup):
    config = OptimizerConfig(schedule="warmup-cosine", learning_rate=0.5, warmup=warmup)
    rates = [float(jnp.asarray(schedule(config, total_steps)(t))) for t in range(total_steps)]
    assert all(0 < rate <= 0.5 for rate in rates)


def test_without_more_options_adam_is_adam_and_nothing_else():
    """The state, and so what checkpoints hold, is that of optax.adam."""
    params = {"kernel": jnp.ones(3)}
    ours = optimizer(OptimizerConfig(optimizer="adam"), 20)
    states = [tx.init(params) for tx in (ours, optax.adam(optax.constant_schedule(0.1)))]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
