"""Scale and bias that depend on a class: the conditional batch norm of a GAN's generator.

    python examples/conditional_norm.py

The norm itself is made without γ and β (`use_scale=False, use_bias=False`); both come from an embedding of the class,
one row per image (de Vries et al. 2017; BigGAN, Brock et al. 2019). The statistics are those of all images of all
classes. The embeddings start at γ = 1 and β = 0, with which the network is unconditional.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.linen import BatchNorm

CLASSES, NOISE, WIDTH = 3, 8, 16


class ConditionalNorm(nn.Module):
    """y = γ(class) · x̂ + β(class), for images of shape (batch, height, width, channels)."""

    @nn.compact
    def __call__(self, x: jax.Array, classes: jax.Array, train: bool) -> jax.Array:
        """Normalise, with one γ and one β per image and channel."""
        x = BatchNorm(use_running_average=not train, momentum=0.9, use_scale=False, use_bias=False)(x)
        scale = nn.Embed(CLASSES, x.shape[-1], embedding_init=nn.initializers.ones, name="scale")(classes)
        bias = nn.Embed(CLASSES, x.shape[-1], embedding_init=nn.initializers.zeros, name="bias")(classes)
        return scale[:, None, None] * x + bias[:, None, None]


class Generator(nn.Module):
    """A generator of images of 8 by 8 pixels from noise and a class."""

    @nn.compact
    def __call__(self, noise: jax.Array, classes: jax.Array, train: bool) -> jax.Array:
        """Pixels between −1 and 1."""
        x = nn.Dense(2 * 2 * WIDTH)(noise).reshape(-1, 2, 2, WIDTH)
        for _ in range(2):
            x = nn.ConvTranspose(WIDTH, (4, 4), (2, 2), use_bias=False)(x)
            x = nn.relu(ConditionalNorm()(x, classes, train))
        return jnp.tanh(nn.Conv(1, (3, 3))(x))


def main() -> None:
    """Train the generator to make images whose brightness depends on the class."""
    generator, brightness = Generator(), jnp.array([-0.8, 0.0, 0.8])

    def batch(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_noise, of_class = jax.random.split(key)
        return jax.random.normal(of_noise, (32, NOISE)), jax.random.randint(of_class, (32,), 0, CLASSES)

    noise, classes = batch(jax.random.key(0))
    variables: Any = jax.jit(lambda: generator.init(jax.random.key(1), noise, classes, train=False))()
    evaluate: Any = jax.jit(lambda variables, classes: generator.apply(variables, noise, classes, train=False))
    of_first, of_last = (evaluate(variables, jnp.full(32, c)) for c in (0, 2))
    np.testing.assert_array_equal(of_first, of_last)  # unconditional at the start

    @jax.jit
    def step(variables: Any, key: jax.Array) -> Any:  # noqa: ANN401
        noise, classes = batch(key)

        def loss(params: Any) -> Any:  # noqa: ANN401
            inputs = variables | {"params": params}, noise, classes
            images, updates = generator.apply(*inputs, train=True, mutable=["batch_stats"])
            return jnp.square(images.mean((1, 2, 3)) - brightness[classes]).mean(), updates

        gradients, updates = jax.grad(loss, has_aux=True)(variables["params"])
        return {"params": jax.tree.map(lambda p, g: p - 0.2 * g, variables["params"], gradients)} | updates

    for key in jax.random.split(jax.random.key(2), 100):
        variables = step(variables, key)
    means = [float(evaluate(variables, jnp.full(32, c)).mean()) for c in range(CLASSES)]
    print(f"brightness of the classes' images in evaluation: {', '.join(f'{mean:.2f}' for mean in means)}")
    np.testing.assert_allclose(means, brightness, atol=0.2)


if __name__ == "__main__":
    main()
