"""jaxbn: the program of `python -m train`, a loop on the device."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from benchmarks.steps.data import data, starts
from train.network.convolution import convolution_for
from train.network.models import CNN
from train.training.step import Examples, init_state, train_steps


def ours(batch_size: int) -> Callable[[], object]:
    """The loop on the device that `python -m train` runs."""
    images = Examples(*map(jnp.asarray, data()))
    model, tx = CNN(10, convolution=convolution_for(jax.default_backend())), optax.adam(1e-3)
    program = jax.jit(partial(train_steps, model, tx, batch_size=batch_size), donate_argnums=0)
    order, span = jnp.arange(len(images.labels)), (jnp.int32(0), jnp.int32(len(starts(batch_size))))
    state = init_state(model, tx, images.inputs, seed=0)

    def run() -> object:
        nonlocal state
        state, metrics = program(state, images, order, span)
        return metrics

    return run
