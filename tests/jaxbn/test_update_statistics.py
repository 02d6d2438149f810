"""`update_statistics=False`: normalised by the batch, as in training, without an update of the running statistics."""

from typing import Any

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


def linen(**options: Any) -> tuple[jaxbn.linen.BatchNorm, Any]:
    norm = jaxbn.linen.BatchNorm(use_running_average=False, momentum=jaxbn.cumulative(), **options)
    return norm, norm.init(jax.random.key(0), X)


def linen_trained() -> tuple[jax.Array, Any]:
    norm, variables = linen()
    y, updates = norm.apply(variables, X, mutable=["batch_stats"])
    return y, updates["batch_stats"]


def nnx_norm(**options: Any) -> jaxbn.nnx.BatchNorm:
    return jaxbn.nnx.BatchNorm(3, momentum=jaxbn.cumulative(), rngs=nnx.Rngs(0), **options)


def statistics(norm: nnx.Module) -> Any:
    return nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))


def same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("constructed", "called", "updates"),
    [(True, None, True), (True, False, False), (False, None, False), (False, True, True)],
)
def test_the_call_takes_precedence(constructed, called, updates):
    expected, updated = linen_trained()
    norm, variables = linen(update_statistics=constructed)
    y, after = norm.apply(variables, X, update_statistics=called, mutable=["batch_stats"])
    same(y, expected)
    same(after["batch_stats"], updated if updates else variables["batch_stats"])

    norm = nnx_norm(update_statistics=constructed)
    before = statistics(norm)
    same(norm(X, update_statistics=called), expected)
    same(statistics(norm), updated if updates else before)


def test_linen_needs_no_mutable_collection():
    norm, variables = linen(update_statistics=False)
    same(norm.apply(variables, X), linen_trained()[0])


def test_evaluation_is_as_ever():
    norm, variables = linen(update_statistics=False)
    same(
        norm.clone(use_running_average=True).apply(variables, X),
        jaxbn.batch_norm(*jaxbn.init(3), X, False)[0],
    )


def test_a_view_of_an_nnx_model():
    model = nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(1)), nnx_norm())
    before = statistics(model)
    same(nnx.view(model, update_statistics=False)(X), model(X))
    same(statistics(model)["layers"][1]["count"], 1)  # of the call of the model itself
    assert not np.array_equal(statistics(model)["layers"][1]["mean"], before["layers"][1]["mean"])


def test_recalibration_estimates_them_all_the_same():
    norm = nnx_norm(update_statistics=False)
    jaxbn.nnx.recalibrate(norm, [X])
    assert_close(norm.mean[...], X.mean(0), condition=4)
    module, variables = linen(update_statistics=False)

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"])

    same(jaxbn.recalibrate(apply, variables, [X])["batch_stats"]["mean"], norm.mean[...])


def test_a_traced_flag():
    norm, variables = linen()
    with pytest.raises(TypeError, match="update_statistics must be a Python bool"):
        jax.jit(lambda flag: norm.apply(variables, X, update_statistics=flag, mutable=["batch_stats"]))(True)
