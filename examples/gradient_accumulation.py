"""Gradient accumulation: k small batches give exactly the result of one step on all of their rows with ghost batches.

    python examples/gradient_accumulation.py

`optax.MultiSteps` averages the gradients of k batches. But every batch updates the running statistics, so with a plain
momentum they decay k times per step. With the momentum `jaxbn.accumulated` they decay once: after k batches they are
momentum · old + (1 − momentum) · the mean of the k batches' statistics.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbn

ROWS, STEPS, UPDATES, FEATURES = 8, 4, 3, 5  # rows per small batch, batches per step, steps of the optimizer
MOMENTUM = 0.9


def loss(params: Any, state: Any, batch: jax.Array, **options: Any) -> tuple[jax.Array, Any]:  # noqa: ANN401
    """The loss of a layer with its norm and a linear readout, and the new running statistics."""
    x, target = batch[:, :-1], batch[:, -1]
    hidden, state = jaxbn.batch_norm(
        params["norm"], state, x @ params["kernel"], train=True, activation="relu", **options
    )
    return jnp.square(hidden @ params["readout"] - target).mean(), state


def trained(optimizer: Any, batches: jax.Array, **options: Any) -> tuple[Any, jaxbn.BatchNormState]:  # noqa: ANN401
    """The parameters and running statistics after one update per batch."""
    norm, state = jaxbn.init(FEATURES)
    kernel = jax.random.normal(jax.random.key(1), (FEATURES, FEATURES))
    params = {"kernel": kernel, "norm": norm, "readout": jnp.ones(FEATURES) / FEATURES}

    @jax.jit
    def step(params: Any, state: Any, opt_state: Any, batch: jax.Array) -> Any:  # noqa: ANN401
        gradients, state = jax.grad(partial(loss, **options), has_aux=True)(params, state, batch)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    opt_state = optimizer.init(params)
    for batch in batches:
        params, state, opt_state = step(params, state, opt_state, batch)
    return params, state


def main() -> None:
    """Train in three ways, and compare the parameters and running statistics."""
    rows = 2 + jax.random.normal(jax.random.key(0), (UPDATES, STEPS * ROWS, FEATURES + 1))
    small = rows.reshape(UPDATES * STEPS, ROWS, FEATURES + 1)
    adam = optax.adam(1e-2)
    accumulating: Any = optax.MultiSteps(adam, STEPS)

    params, state = trained(adam, rows, momentum=MOMENTUM, ghost_batch_size=ROWS)
    new_params, new_state = trained(accumulating, small, momentum=jaxbn.accumulated(MOMENTUM, STEPS))
    _, plain = trained(accumulating, small, momentum=MOMENTUM)

    compare = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(compare, new_params, params)
    jax.tree.map(compare, (new_state.mean, new_state.var), (state.mean, state.var))
    assert new_state.count == STEPS * state.count
    print(f"{UPDATES} steps of {STEPS} batches equal {UPDATES} steps on all their rows: parameters and statistics")

    batch_mean = (rows[..., :-1] @ params["kernel"]).mean((0, 1))
    shares = [float(jnp.linalg.norm(s.mean) / jnp.linalg.norm(batch_mean)) for s in (new_state, plain)]
    assert shares[1] > 2 * shares[0]
    print(f"share of the batches in the running mean: {shares[0]:.2f}; with a plain momentum {shares[1]:.2f}")


if __name__ == "__main__":
    main()
