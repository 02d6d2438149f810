"""The programs of a whole run are lowered for processors, GPUs and TPUs, on a machine that has none of the latter."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from train.config.sections import OptimizerConfig
from train.network.convolution import convolve
from train.network.models import CNN, MLP
from train.training.optimizer import optimizer
from train.training.step import Examples, evaluate, init_state, train_steps

PLATFORMS = ("cpu", "cuda", "tpu")
IMAGES = jax.ShapeDtypeStruct((1000, 28, 28, 1), jnp.uint8)
FEATURES = jax.ShapeDtypeStruct((1000, 4), jnp.float32)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (CNN(10, convolution=lax.conv_general_dilated), IMAGES),
        (CNN(10, convolution=convolve), IMAGES),
        (MLP(10), FEATURES),
    ],
    ids=["CNN, lax", "CNN, patches", "MLP"],
)
def test_training_and_evaluation_are_lowered_for_every_platform(model, inputs):
    tx = optimizer(OptimizerConfig(), 100)
    data = jax.eval_shape(lambda x: Examples(x, jnp.zeros((1000,), jnp.int32)), inputs)
    step, order = jax.ShapeDtypeStruct((), jnp.int32), data.labels
    state = jax.eval_shape(lambda x: init_state(model, tx, x, seed=0), inputs)

    training = jax.jit(partial(train_steps, model, tx, batch_size=64), donate_argnums=0)
    exported = jax.export.export(training, platforms=PLATFORMS)(state, data, order, (step, step))
    assert exported.platforms == PLATFORMS
    results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert jax.tree.map(jnp.shape, results[0]) == jax.tree.map(jnp.shape, state)
    convolutions = exported.mlir_module().count("stablehlo.convolution")
    assert (convolutions > 0) == (getattr(model, "convolution", None) is lax.conv_general_dilated)

    evaluation = jax.jit(partial(evaluate, model, batch_size=250))
    exported = jax.export.export(evaluation, platforms=PLATFORMS)(state, data)
    assert exported.platforms == PLATFORMS
    assert [aval.shape for aval in exported.out_avals] == [(), (), ()]
