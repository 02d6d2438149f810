"""Averages of weights (EMA), and the running statistics that belong to them: recalibrated ones.

    python examples/weight_averages.py

The running statistics of a training belong to its weights, not to their average: with averaged weights, each norm gets
different inputs. Three choices are compared. (1) The running statistics of the training. (2) An average of them with
the decay of the weights ("EMA of the buffers"), which is better for slowly moving weights. (3) `jaxbn.recalibrate`:
the statistics of the averaged network itself, exactly, from a few passes over some training data.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbn
from jaxbn.linen import BatchNorm

DECAY, STEPS, ROWS = 0.98, 120, 64


class Network(nn.Module):
    """Two hidden layers with norms."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """One number per row."""
        for _ in range(2):
            x = BatchNorm(use_running_average=not train, momentum=0.9, activation="relu")(nn.Dense(32)(x))
        return nn.Dense(1)(x)[:, 0]


def main() -> None:
    """Train with averages of weights and of statistics, and evaluate the averaged weights."""
    model, optimizer, ema = Network(), optax.adam(1e-2), optax.ema(DECAY)
    x = 2 + jax.random.normal(jax.random.key(0), (512, 4))
    y = jnp.sin(x).sum(1)

    def apply(variables: Any, x: jax.Array) -> Any:  # noqa: ANN401
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    @jax.jit
    def step(variables: Any, opt_state: Any, ema_state: Any, key: jax.Array) -> Any:  # noqa: ANN401
        rows = jax.random.choice(key, len(x), (ROWS,))

        def loss(params: Any) -> tuple[jax.Array, Any]:  # noqa: ANN401
            outputs, updates = apply(variables | {"params": params}, x[rows])
            return jnp.square(outputs - y[rows]).mean(), updates

        gradients, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(gradients, opt_state)
        variables = {"params": optax.apply_updates(variables["params"], updates)} | statistics
        average, ema_state = ema.update(variables, ema_state)  # averages of the weights and of the running statistics
        return average, variables, opt_state, ema_state

    variables: Any = jax.jit(lambda key: model.init(key, x, train=False))(jax.random.key(1))
    average, opt_state, ema_state = variables, optimizer.init(variables["params"]), ema.init(variables)
    for key in jax.random.split(jax.random.key(2), STEPS):
        average, variables, opt_state, ema_state = step(variables, opt_state, ema_state, key)

    choices = {
        "the training's": {"params": average["params"], "batch_stats": variables["batch_stats"]},
        "averaged": average,
        "recalibrated": jaxbn.recalibrate(apply, average, [x[:200], x[200:]]),  # however the rows are divided
    }
    predict: Any = jax.jit(partial(model.apply, train=False))
    losses = {name: float(jnp.square(predict(chosen, x) - y).mean()) for name, chosen in choices.items()}
    for name, value in losses.items():
        print(f"loss of the averaged weights, running statistics {name}: {value:.3f}")
    assert losses["recalibrated"] < 0.9 * min(losses["averaged"], losses["the training's"])

    hidden = x @ average["params"]["Dense_0"]["kernel"] + average["params"]["Dense_0"]["bias"]
    found = choices["recalibrated"]["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], hidden.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["var"], hidden.var(0), rtol=1e-4)
    print("recalibrated statistics are those of all rows under the averaged weights")


if __name__ == "__main__":
    main()
