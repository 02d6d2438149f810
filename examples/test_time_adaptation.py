"""Adaptation at test time to data that has shifted: TENT, and a blend of batch and running statistics (TTN).

    python examples/test_time_adaptation.py

A classifier that was trained on one kind of data is applied to another: here, to scaled and shifted features. Its
running statistics no longer fit. Three remedies need no labels: the statistics of the test batch; a blend of both
statistics with a weight per channel, which suits small batches; and TENT (Wang et al. 2021), which also trains γ and β
to lower the entropy of the predictions.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxbn

FEATURES, CLASSES, ROWS = 8, 3, 200


def data(key: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """Three clouds of points, with their labels."""
    of_label, of_noise = jax.random.split(key)
    labels = jax.random.randint(of_label, (rows,), 0, CLASSES)
    centres = 2 * jax.random.normal(jax.random.key(7), (CLASSES, FEATURES))
    return centres[labels] + jax.random.normal(of_noise, (rows, FEATURES)), labels


def logits(params: Any, state: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:  # noqa: ANN401
    """A linear classifier behind a norm; with `state=None` the batch's statistics normalise, and nothing is tracked."""
    x, state = jaxbn.batch_norm(params["norm"], state, x, train, momentum=0.9)
    return x @ params["kernel"], state


def blended(state: jaxbn.BatchNormState, x: jax.Array, share: jax.Array) -> jaxbn.BatchNormState:
    """The state of a mixture that takes `share` of each channel from the batch (TTN, Lim et al. 2023).

    μ = α μ_B + (1 − α) μ_R and σ² = α σ_B² + (1 − α) σ_R² + α (1 − α) (μ_B − μ_R)², a merge with weights α, 1 − α.
    """
    running = jaxbn.Moments(1 - share, state.mean, jnp.zeros_like(state.mean), state.var)
    both = jaxbn.merge([running, jaxbn.moments(x)._replace(weight=share)])
    return state._replace(mean=both.mean, var=both.var)


def entropy(norm: jaxbn.BatchNormParams, params: Any, x: jax.Array) -> jax.Array:  # noqa: ANN401
    """The mean entropy of the predictions as a function of γ and β, which TENT minimises."""
    log_probabilities = jax.nn.log_softmax(logits(params | {"norm": norm}, None, x, train=True)[0])
    return -(jnp.exp(log_probabilities) * log_probabilities).sum(1).mean()


def main() -> None:
    """Train, shift the data, and compare the accuracies."""
    x, labels = data(jax.random.key(0), ROWS)
    norm, state = jaxbn.init(FEATURES)
    params: Any = {"norm": norm, "kernel": jnp.zeros((FEATURES, CLASSES))}

    @jax.jit
    def step(params: Any, state: Any) -> Any:  # noqa: ANN401
        def loss(params: Any) -> Any:  # noqa: ANN401
            y, new_state = logits(params, state, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(y, labels).mean(), new_state

        gradients, state = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradients), state

    for _ in range(60):
        params, state = step(params, state)

    x, labels = data(jax.random.key(1), ROWS)
    x = x * jnp.geomspace(0.3, 3, FEATURES) + jnp.linspace(-10, 10, FEATURES)  # the shift

    def accuracy(params: Any, state: Any, x: jax.Array, train: bool = False) -> float:  # noqa: ANN401
        return float((logits(params, state, x, train)[0].argmax(1) == labels).mean())

    found = {"running statistics": accuracy(params, state, x), "the batch's": accuracy(params, None, x, train=True)}
    found["a blend"] = accuracy(params, blended(state, x, share=jnp.full(FEATURES, 0.9)), x)
    lower = jax.jit(jax.value_and_grad(entropy))
    before, _ = lower(params["norm"], params, x)
    adapted = params["norm"]
    for _ in range(20):
        _, gradients = lower(adapted, params, x)
        adapted = jax.tree.map(lambda p, g: p - 0.1 * g, adapted, gradients)
    after, _ = lower(adapted, params, x)
    found["TENT"] = accuracy(params | {"norm": adapted}, None, x, train=True)

    for name, value in found.items():
        print(f"accuracy on shifted data, {name}: {value:.1%}")
    print(f"entropy before TENT {before:.3f}, after it {after:.3f}")
    assert after < before
    assert min(found["the batch's"], found["a blend"], found["TENT"]) > found["running statistics"] + 0.2

    check = partial(jnp.allclose, rtol=1e-5, atol=1e-5)
    own = jaxbn.moments(x)
    assert check(blended(state, x, jnp.zeros(FEATURES)).var, state.var)
    assert check(blended(state, x, jnp.ones(FEATURES)).var, own.var)


if __name__ == "__main__":
    main()
