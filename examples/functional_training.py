"""The training of a network on scikit-learn's digits, in pure functions, to be read from top to bottom.

python examples/functional_training.py
"""

from typing import Any

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

import jaxbn

SHAPES, EPOCHS, BATCH, RATE = ((64, 64), (64, 32), (32, 10)), 5, 50, 0.2


def init(key: jax.Array) -> Any:  # noqa: ANN401
    """The parameters and the running statistics. A norm follows each kernel except the last, and has the bias."""
    kernels = [jax.random.normal(jax.random.fold_in(key, i), shape) / 8 for i, shape in enumerate(SHAPES)]
    norms, state = zip(*(jaxbn.init(width) for _, width in SHAPES[:-1]), strict=True)
    return {"kernels": kernels, "norms": norms, "bias": jnp.zeros(10)}, list(state)


def network(params: Any, state: Any, x: jax.Array, train: bool) -> Any:  # noqa: ANN401
    """The logits and the new running statistics."""
    new_state = list(state)
    for i, norm in enumerate(params["norms"]):
        x = x @ params["kernels"][i]
        x, new_state[i] = jaxbn.batch_norm(norm, state[i], x, train, momentum=0.9, activation="relu")
    return x @ params["kernels"][-1] + params["bias"], new_state


@jax.jit
def step(params: Any, state: Any, x: jax.Array, labels: jax.Array) -> Any:  # noqa: ANN401
    """One step of gradient descent. The parameters follow their gradients; the state is replaced."""

    def loss(params: Any) -> Any:  # noqa: ANN401
        logits, new_state = network(params, state, x, train=True)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean(), new_state

    gradients, new_state = jax.grad(loss, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - RATE * g, params, gradients), new_state


def main() -> None:
    """Train on 1,500 images and evaluate on the other 297."""
    order, accuracy = jax.random.permutation(jax.random.key(0), 1797), 0.0
    images, labels = (jnp.asarray(array)[order] for array in load_digits(return_X_y=True))
    params, state = init(jax.random.key(1))
    for epoch in range(EPOCHS):
        for rows in jax.random.permutation(jax.random.key(epoch), 1500).reshape(-1, BATCH):
            params, state = step(params, state, images[rows], labels[rows])
        logits, _ = network(params, state, images[1500:], train=False)
        accuracy = (logits.argmax(1) == labels[1500:]).mean()
        print(f"epoch {epoch + 1}: {accuracy:.1%} of the test images are right")
    assert accuracy > 0.93


if __name__ == "__main__":
    main()
