"""Flax's own norms in models that are not edited: `nnx.convert` and `linen.substituted`."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from flax import nnx

import jaxbn
import jaxbn.linen
import jaxbn.nnx

X = jnp.asarray(np.random.default_rng(0).normal(3, 2, (8, 3)), jnp.float32)
FAR = X + 1e5  # Flax's variance is wrong for this mean


@pytest.fixture(autouse=True)
def strict():
    """Flax relies on implicit promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Model(nn.Module):
    """A norm that is called twice, one in a list, one under `nn.remat`, one without an affine part."""

    norm: Any = nn.BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        make = partial(self.norm, use_running_average=not train, momentum=0.9)
        shared = make(name="shared")
        x = shared(shared(nn.Dense(3)(x)))
        for layer in [make(dtype=jnp.bfloat16), nn.remat(self.norm)(use_running_average=not train)]:
            x = layer(x)
        return make(use_bias=False, use_scale=False)(x)


VARIABLES: Any = Model().init(jax.random.key(0), X, False)


def applied(model: nn.Module, x: jax.Array, train: bool = True) -> Any:
    return model.apply(VARIABLES, x, train, mutable=["batch_stats"])


@pytest.mark.parametrize("train", [True, False])
def test_substituted_computes_as_ours(train):
    with jaxbn.linen.substituted():
        found = applied(Model(), X, train)
    for actual, expected in zip(
        jax.tree.leaves(found), jax.tree.leaves(applied(Model(jaxbn.linen.BatchNorm), X, train)), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


def test_substituted_makes_the_same_variables_and_the_same_calls():
    def run() -> Any:
        variables = Model().init(jax.random.key(0), X, False)
        _, seen = Model().apply(variables, X, True, mutable=True, capture_intermediates=True)
        return variables, jax.tree.map(lambda v: (v.shape, v.dtype), seen)

    theirs, ours = run(), jaxbn.linen.substituted()(run)()
    assert theirs[1] == ours[1]
    jax.tree.map(np.testing.assert_array_equal, theirs[0], ours[0])
    table = nn.summary.tabulate(Model(), jax.random.key(0))(X, False)
    assert jaxbn.linen.substituted()(lambda: nn.summary.tabulate(Model(), jax.random.key(0))(X, False))() == table


def test_substituted_ends():
    before = applied(Model(), FAR)
    with pytest.raises(RuntimeError), jaxbn.linen.substituted():
        raise RuntimeError
    np.testing.assert_array_equal(applied(Model(), FAR)[0], before[0])


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["resnet", "regnet"])
def test_substituted_in_a_published_model(name, train):
    """Models with Flax's norms, imported long before: near mean 0, Flax's own statistics are exact enough."""
    reason = "no FlaxResNet: pip install 'transformers<5'"
    module = pytest.importorskip(f"transformers.models.{name}.modeling_flax_{name}", reason=reason)
    transformers = pytest.importorskip("transformers")
    kind, sizes = {"resnet": "ResNet", "regnet": "RegNet"}[name], {"embedding_size": 8, "hidden_sizes": [8, 16]}
    config = getattr(transformers, f"{kind}Config")(**sizes, depths=[1, 1], groups_width=8)
    model = getattr(module, f"Flax{kind}Model")(config, input_shape=(1, 32, 32, 3))
    images = np.random.default_rng(0).normal(0, 1, (4, 3, 32, 32)).astype(np.float32)

    def run():
        found = model(images, train=train)
        return found[0].last_hidden_state if train else found.last_hidden_state

    with jaxbn.linen.substituted():
        found = run()
    assert_close(found, run(), condition=10)  # the norms on the way


def test_substituted_options():
    with jaxbn.linen.substituted(update_statistics=False):
        _, updates = applied(Model(), X)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], VARIABLES["batch_stats"])
    with jaxbn.linen.substituted(ghost_batch_size=4):
        y, _ = applied(Model(), X)
    np.testing.assert_array_equal(y, applied(Model(partial(jaxbn.linen.BatchNorm, ghost_batch_size=4)), X)[0])


def test_substituted_is_recalibrated():
    apply = jaxbn.linen.substituted()(lambda variables, x: Model().apply(variables, x, True, mutable=["batch_stats"]))
    found = jaxbn.recalibrate(apply, VARIABLES, [X[:3], X[3:]])
    ours = Model(jaxbn.linen.BatchNorm)
    expected = jaxbn.recalibrate(
        lambda variables, x: ours.apply(variables, x, True, mutable=["batch_stats"]), VARIABLES, [X[:3], X[3:]]
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_call_of_ones_own_stays():
    class Own(nn.BatchNorm):
        def __call__(self, x, use_running_average=None, *, mask=None):
            return x

    with jaxbn.linen.substituted():
        np.testing.assert_array_equal(Own(use_running_average=True).apply({}, X), X)

    class OwnNNX(nnx.BatchNorm):
        def __call__(self, x, use_running_average=None, *, mask=None):
            return x

    assert type(jaxbn.nnx.convert(OwnNNX(3, rngs=nnx.Rngs(0)))) is OwnNNX


def network(norm: Any = nnx.BatchNorm) -> Any:
    """Norms in a list, in a module, and the same one twice."""
    rngs = nnx.Rngs(0)
    shared = norm(3, momentum=0.9, rngs=rngs)
    plain = norm(3, use_bias=False, use_scale=False, dtype=jnp.bfloat16, rngs=rngs)
    return nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), shared, nnx.Sequential(plain, shared))


def test_convert_is_as_if_made_of_ours():
    model, expected = jaxbn.nnx.convert(network()), network(jaxbn.nnx.BatchNorm)
    assert nnx.graphdef(model) == nnx.graphdef(expected)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), nnx.state(expected))
    step = nnx.jit(lambda model, x: model(x))
    np.testing.assert_array_equal(step(model, FAR), step(expected, FAR))
    model.eval()
    expected.eval()
    np.testing.assert_array_equal(step(model, X), step(expected, X))


def test_convert_keeps_what_was_trained_and_every_reference():
    model = network()
    norm, variable = model.layers[1], model.layers[1].mean
    model(X)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    assert jaxbn.nnx.convert(model) is model
    assert model.layers[1] is norm is model.layers[2].layers[1]
    assert norm.mean is variable
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model)), before)
    expected = network(jaxbn.nnx.BatchNorm)
    nnx.update(expected, before)
    for each in (model, expected):
        each.eval()
    np.testing.assert_array_equal(model(X), expected(X))


def test_convert_one_norm_with_options():
    norm: Any = jaxbn.nnx.convert(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), momentum=jaxbn.cumulative(), activation="relu")
    assert (norm(X) >= 0).all()
    assert norm.count[...] == 1
    assert_close(norm.mean[...], X.mean(0), condition=4)


@pytest.mark.parametrize("options", [{"use_scale": False}, {"momentums": 0.9}], ids=str)
def test_errors(options):
    with pytest.raises(TypeError, match=next(iter(options))):
        jaxbn.nnx.convert(network(), **options)
    if "momentums" in options:
        with pytest.raises(TypeError, match="momentums"), jaxbn.linen.substituted(**options):
            pass
