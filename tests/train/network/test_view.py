"""The images as a network sees them: deslanted as defined, without the border, moved as far as allowed in training."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from moves import moves

from train.config.datasets import DATASETS
from train.config.sections import Config, ModelConfig, RunConfig
from train.data import Dataset
from train.network.build import build
from train.network.view import View, deslant
from train.training.plan import resolve


def sheared(image: np.ndarray) -> np.ndarray:
    """The definition in float64, pixel by pixel."""
    height, width, channels = image.shape
    brightness = image.astype(np.float64).sum(-1)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    mass = brightness.sum()
    if not mass:
        return image.astype(np.float64)
    y, x = y - (brightness * y).sum() / mass, x - (brightness * x).sum() / mass
    along = (brightness * y * y).sum()
    slant = (brightness * y * x).sum() / along if along > 1e-9 else 0.0
    result = np.zeros((height, width, channels))
    for row in range(height):
        places = np.arange(width) + slant * y[row, 0]
        for channel in range(channels):
            result[row, :, channel] = np.interp(
                places, np.arange(-1, width + 1), np.pad(image[row, :, channel].astype(np.float64), 1), left=0, right=0
            )
    return result


@pytest.mark.parametrize("shape", [(12, 9, 1), (5, 8, 3), (1, 4, 1)])
def test_images_are_deslanted_as_defined(shape):
    """A pixel's error is that of its place, some 1e-6 of a pixel's width, times the step to its neighbour."""
    images = np.random.default_rng(0).uniform(size=(6, *shape)).astype(np.float32)
    images[0] = 0  # black
    images[1, 1:] = 0  # a single row
    images[2, :, 1:] = 0  # a single column
    found = jax.jit(deslant)(images)
    np.testing.assert_allclose(found, np.stack([sheared(image) for image in images]), atol=1e-5)


@pytest.mark.parametrize("slant", [-0.75, -0.2, 0.5])
def test_a_slanted_stroke_becomes_upright(slant):
    """A stroke is as wide as before, and each row has its centre in the same place."""
    y, x = np.mgrid[:20, :28]
    stroke = np.clip(2 - np.abs(x - 13.5 - slant * (y - 9.5)), 0, 1).astype(np.float32)[..., None]
    stroke[:3] = stroke[-3:] = 0
    upright = np.asarray(deslant(jnp.asarray(stroke)[None]))[0, 3:-3, :, 0]
    centres = (upright * x[3:-3]).sum(1) / upright.sum(1)
    np.testing.assert_allclose(centres, 13.5, atol=0.05)
    np.testing.assert_allclose(upright.sum(1), stroke[3:-3, :, 0].sum(1), rtol=0, atol=3e-4)


def test_what_is_beyond_the_border_does_not_come_in():
    """Strokes at both borders move out on one side; black, and nothing from the other side, moves in."""
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, range(9), range(9)] = 1
    image[0, 0, 8] = 0.5
    moved = np.asarray(deslant(jnp.asarray(image)))[0]
    np.testing.assert_allclose(moved, sheared(image[0]), atol=1e-5)
    assert moved.sum() < image.sum()


def test_the_border_is_cut_off():
    images = jnp.arange(2 * 6 * 8 * 1.0).reshape(2, 6, 8, 1)
    np.testing.assert_array_equal(View(crop=2).of(images), images[:, 2:4, 2:6])
    assert View().of(images) is images


def test_in_training_each_image_is_moved_on_its_own_and_all_moves_are_as_frequent():
    shift, n = 2, 5000
    images = np.random.default_rng(0).uniform(size=(n, 6, 7, 2)).astype(np.float32)
    seen = jax.jit(lambda key: View(shift=shift).of(jnp.asarray(images), key))(jax.random.key(3))
    found = moves(images, np.asarray(seen), shift)
    np.testing.assert_array_equal(found.sum(axis=0), 1)  # each image was moved, as allowed
    expected = n / 25
    assert ((found.sum(axis=1) - expected) ** 2).sum() / expected < 52  # χ², 24 degrees: p = 0.001
    still = jnp.asarray(images)
    assert View(shift=shift).of(still) is still, "without a key, as in evaluation, nothing moves"


def test_what_was_cut_off_moves_in():
    """An image is moved before its border is cut off: no zero comes in where the border is as wide as the move."""
    images = 1 + jnp.arange(40 * 6 * 8.0).reshape(40, 6, 8, 1)
    key = jax.random.key(0)
    seen = View(crop=1, shift=1).of(images, key)
    np.testing.assert_array_equal(seen, View(shift=1).of(images, key)[:, 1:-1, 1:-1])
    assert float(seen.min()) > 0


@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_both_networks_see_moved_images_in_training_alone(network):
    options = ModelConfig(network=network, channels=(2,) if network == "cnn" else None, hidden=(3,))
    moving = build(dataclasses.replace(Config(), model=dataclasses.replace(options, shift=1)), (8, 8, 1), 3, "cpu", 10)
    still = moving.clone(view=View())
    images = jax.random.uniform(jax.random.key(0), (16, 8, 8, 1))
    variables = moving.init(jax.random.key(1), images, train=False)
    apply = partial(moving.apply, variables, images)
    np.testing.assert_array_equal(apply(train=False), still.apply(variables, images, train=False))
    train = partial(apply, train=True, mutable=["batch_stats"])
    first, again, other = (train(rngs={"shift": jax.random.key(seed)})[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_both_networks_see_the_prepared_images(network):
    options = ModelConfig(network=network, channels=(2,) if network == "cnn" else None, hidden=(3,))
    plain, prepared = (
        build(dataclasses.replace(Config(), model=model), shape, 3, "cpu", 10)
        for model, shape in (
            (options, (8, 8, 1)),
            (dataclasses.replace(options, deslant="on", crop=2), (12, 12, 1)),
        )
    )
    images = jax.random.uniform(jax.random.key(0), (4, 12, 12, 1))
    variables = prepared.init(jax.random.key(1), images, train=False)
    seen = deslant(images)[:, 2:-2, 2:-2]
    np.testing.assert_array_equal(
        prepared.apply(variables, images, train=False), plain.apply(variables, seen, train=False)
    )


def dataset(name: str) -> Dataset:
    images, labels = np.zeros((4, 12, 12, 1), np.uint8), np.zeros(4, np.int32)
    return Dataset(name, "made up", images, labels, images, labels, ("a", "b"))


def test_the_dataset_decides_unless_an_option_does():
    assert DATASETS["mnist"].deslant == "on"
    assert min(DATASETS["mnist"].crop, DATASETS["mnist"].shift) > 0
    for name, recipe in DATASETS.items():
        model = resolve(Config(), dataset(name)).model
        assert (model.deslant, model.crop, model.shift) == (recipe.deslant, recipe.crop, recipe.shift)
        assert model.channels == recipe.channels
    given = dataclasses.replace(Config(), model=ModelConfig(deslant="off", crop=0, shift=0, channels=(5,)))
    assert resolve(given, dataset("mnist")).model == given.model
    mlp = dataclasses.replace(Config(), model=ModelConfig(network="mlp"))
    assert resolve(mlp, dataset("mnist")).model.channels is None


def test_a_run_that_was_started_without_these_options_continues_without_them(tmp_path):
    resumed = dataclasses.replace(Config(), run=RunConfig(resume=tmp_path))
    assert resolve(resumed, dataset("mnist")).model == Config().model
    assert build(resumed, (12, 12, 1), 3, "cpu", 10).view == View()
