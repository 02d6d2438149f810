"""The deviation √(σ² + ε) and its inverse, which every channel is multiplied by."""

import math

import jax
import jax.numpy as jnp


def deviation(var: jax.Array, epsilon: float | jax.Array) -> jax.Array:
    """√(var + epsilon), accurate even if the sum is below the smallest normal number, which processors flush to 0."""
    if isinstance(epsilon, jax.Array):
        epsilon = epsilon.astype(var.dtype)
    elif epsilon < jnp.finfo(var.dtype).tiny:
        return jnp.hypot(jnp.sqrt(var), math.sqrt(epsilon))
    return jnp.sqrt(var + epsilon)


def inverse_root(var: jax.Array, epsilon: float | jax.Array) -> jax.Array:
    """1/√(var + epsilon), or 0 where both are 0: the output of a constant channel is then 0 · γ + β."""
    constant = epsilon
    if isinstance(epsilon, jax.Array):
        epsilon = epsilon.astype(var.dtype)
        constant = jax.lax.stop_gradient(epsilon)
    return _inverse(var + epsilon, deviation(jax.lax.stop_gradient(var), constant))


@jax.custom_jvp
def _inverse(square: jax.Array, root: jax.Array) -> jax.Array:
    """1/root as a function of the square; the derivative never forms root⁻³, which overflows long before 1/root."""
    return jnp.where(root == 0, 0, 1 / jnp.where(root == 0, 1, root))


@_inverse.defjvp
def _(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    result = _inverse(*primals)
    return result, -0.5 * result * ((tangents[0] * result) * result)
