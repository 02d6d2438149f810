"""CrossQ: a critic without target network; batch renormalization with sbx's warm-up; running normalization (RSNorm).

    python examples/crossq.py

CrossQ (Bhatt et al. 2024) evaluates Q(s, a) and Q(s', a') in one forward pass over both batches, so that the norm's
statistics are those of the mixture, and needs no target network. This program has that critic, the conversion of the
variables of sbx's BatchRenorm layer, and SimBa's RSNorm.
"""

from math import inf
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxbn
from jaxbn.linen import BatchNorm

STATE, ACTION, ROWS, DISCOUNT = 3, 2, 64, 0.9


def after_warm_up(bound: float, plain: float, steps: int = 100_000) -> Any:  # noqa: ANN401
    """A schedule: plain batch normalization for a number of updates, then the full bound."""
    return lambda count: jnp.where(count < steps, plain, bound)


RENORM: Any = jaxbn.BatchRenorm(r_max=after_warm_up(3.0, 1.0), d_max=after_warm_up(5.0, 0.0))


class Critic(nn.Module):
    """Q(state, action): dense layers with batch renormalization in front of each."""

    @nn.compact
    def __call__(self, state: jax.Array, action: jax.Array, train: bool) -> jax.Array:
        """One value per row."""
        x = jnp.concatenate([state, action], axis=1)
        for width in (32, 32, 1):
            x = BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3, renorm=RENORM)(x)
            x = nn.Dense(width)(x)
            x = nn.relu(x) if width > 1 else x
        return x[:, 0]


def td_loss(params: Any, variables: Any, batch: Any) -> tuple[jax.Array, Any]:  # noqa: ANN401
    """The temporal-difference loss from one joint pass over (s, a) and (s', a')."""
    states, actions, rewards, next_states, next_actions = batch
    both = jnp.concatenate([states, next_states]), jnp.concatenate([actions, next_actions])
    outputs: Any = Critic().apply(variables | {"params": params}, *both, True, mutable=["batch_stats"])
    values, updates = outputs
    value, next_value = jnp.split(values, 2)
    target = jax.lax.stop_gradient(rewards + DISCOUNT * next_value)
    return jnp.square(value - target).mean(), updates


def from_sbx(stats: Any) -> dict[str, jax.Array]:  # noqa: ANN401
    """The running statistics of sbx's BatchRenorm as jaxbn's: `steps` is `count`; the schedule gives the bounds."""
    return {"mean": stats["mean"], "var": stats["var"], "count": jnp.asarray(stats["steps"], jnp.int32)}


def main() -> None:
    """Train the critic, convert variables, and normalise a stream by its running statistics."""
    keys = jax.random.split(jax.random.key(0), 5)
    states, next_states = (2 + jax.random.normal(key, (ROWS, STATE)) for key in keys[:2])
    actions, next_actions = (jax.random.normal(key, (ROWS, ACTION)) for key in keys[2:4])
    batch = states, actions, states.sum(1), next_states, next_actions
    variables: Any = jax.jit(lambda: Critic().init(keys[4], states, actions, train=False))()

    @jax.jit
    def step(variables: Any) -> Any:  # noqa: ANN401
        (loss, updates), gradients = jax.value_and_grad(td_loss, has_aux=True)(variables["params"], variables, batch)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, variables["params"], gradients)
        return {"params": params} | updates, loss

    losses = []
    for _ in range(50):
        variables, loss = step(variables)
        losses.append(float(loss))
    print(f"loss of the first step {losses[0]:.1f}, of the last {losses[-1]:.1f}")
    assert losses[-1] < losses[0] / 3
    stats = variables["batch_stats"]["BatchNorm_0"]
    joint = jnp.concatenate([jnp.concatenate([states, next_states]), jnp.concatenate([actions, next_actions])], axis=1)
    np.testing.assert_allclose(stats["mean"], (1 - 0.99**50) * joint.mean(0), rtol=1e-3, atol=1e-4)  # of both batches

    steps = 150_000  # after the warm-up
    sbx = {"mean": stats["mean"], "var": stats["var"], "steps": steps, "r_max": 3.0, "d_max": 5.0}
    converted = from_sbx(sbx)
    assert converted["count"] == steps
    assert (RENORM.r_max(converted["count"]), RENORM.d_max(converted["count"])) == (sbx["r_max"], sbx["d_max"])

    params, state = jaxbn.init(STATE, use_scale=False, use_bias=False)
    running = jaxbn.BatchRenorm(inf, inf)  # no bounds: normalises by the running statistics before their update
    for key in jax.random.split(jax.random.key(1), 20):
        x = 5 + 2 * jax.random.normal(key, (32, STATE))
        expected = (x - state.mean) / jnp.sqrt(state.var + 1e-5)
        y, state = jaxbn.batch_norm(params, state, x, True, momentum=jaxbn.cumulative(), renorm=running)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state.mean, 5, atol=0.3)
    print(f"RSNorm: normalised by running statistics while these are updated; mean {state.mean.round(1)}")


if __name__ == "__main__":
    main()
