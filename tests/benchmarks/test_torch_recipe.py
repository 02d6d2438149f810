"""PyTorch's run of the default recipe: it sees the same images, and has the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from moves import moves

from train.config.sections import Config, with_options
from train.data import load
from train.network.models import CNN
from train.network.view import View
from train.training.plan import make_plan
from train.training.step import prepare

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

from benchmarks import torch_recipe  # noqa: E402


@pytest.fixture(scope="module")
def digits():
    return load("digits")


CONFIG = with_options(Config(), epochs=2, deslant="on", crop=1, shift=1, channels=(32, 64))


@pytest.mark.parametrize("view", [View(), View(deslant=True, crop=1)])
def test_the_images_are_prepared_in_the_same_way(view, digits):
    images = digits.train_inputs[:20]
    found = torch_recipe._seen(view, torch.from_numpy(images.copy())).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, view.of(prepare(jnp.asarray(images))), atol=1e-5)


def test_in_training_images_are_moved_as_far_as_allowed(digits):
    images = torch.from_numpy(digits.train_inputs[:200].copy())
    still, moved = (
        torch_recipe._seen(View(shift=1), images, training).permute(0, 2, 3, 1).numpy() for training in (False, True)
    )
    found = moves(still, moved, 1)
    assert found.any(axis=0).all()
    assert found.any(axis=1).all()


def test_the_network_has_the_same_parameters(digits):
    model = make_plan(CONFIG, digits).model
    assert isinstance(model, CNN)
    images = prepare(jnp.asarray(digits.train_inputs[:1]))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    network = torch_recipe._network(model, images.shape[1:])
    decaying, others = torch_recipe._by_decay(network)
    assert sum(p.numel() for p in (*decaying, *others)) == sum(a.size for a in jax.tree.leaves(variables["params"]))
    assert len(others) == 2 * 3  # a scale and a bias for each norm


def test_it_learns(digits):
    first, second, other = (torch_recipe.train(with_options(CONFIG, seed=seed), digits) for seed in (0, 0, 1))
    assert first.loss == second.loss != other.loss
    assert first.accuracy > 0.9
    assert first.seconds > 0
