"""Whole networks whose norms are folded compute the same, with fewer operations."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from closeness import assert_close
from flax import nnx
from jax import export, lax

import jaxbn.linen
import jaxbn.nnx
from train.network.models import CNN

KEY = jax.random.key(0)
LINEN = {"ours": jaxbn.linen.BatchNorm, "Flax's": nn.BatchNorm}
NNX = {"ours": jaxbn.nnx.BatchNorm, "Flax's": nnx.BatchNorm}
NORMS = pytest.mark.parametrize("whose", ["ours", "Flax's"])


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(0.2, 1, shape), jnp.float32)


def applied(model: nn.Module, x: jax.Array, **options: Any) -> Any:
    """The function of a Linen model with random norms."""
    variables = jax.jit(partial(model.init, **options))(KEY, x)
    return partial(model.apply, networks.with_random_norms(variables), **options)


def evaluating(norm: Any) -> Any:
    return partial(norm, use_running_average=True)


def operations(function: Any, *arguments: Any) -> dict[str, int]:
    """How often the program multiplies, subtracts, and so on."""
    text = jax.jit(function).lower(*arguments).as_text()
    names = ("multiply", "subtract", "rsqrt", "sqrt", "add", "convolution", "dot_general")
    return {name: text.count(f"stablehlo.{name} ") for name in names}


def assert_same(actual: Any, expected: Any) -> None:
    """Within 1e-5 of the largest result."""
    assert_close(actual, expected, condition=5, size=float(jnp.abs(expected).max()))


def check(function: Any, *arguments: Any) -> tuple[Any, jaxbn.FoldReport]:
    """Folds; compares the results."""
    folded, report = jaxbn.fold_network(function, *arguments)
    assert_same(jax.jit(folded)(*arguments), jax.jit(function)(*arguments))
    return folded, report


def assert_no_norms(folded: Any, *arguments: Any) -> None:
    found = operations(folded, *arguments)
    assert found["multiply"] == found["subtract"] == found["rsqrt"] == found["sqrt"] == 0
    assert found["convolution"] + found["dot_general"] > 0


@NORMS
def test_a_resnet_50_of_linen(whose):
    x = images(2, 32, 32, 3)
    function = applied(networks.LinenResNet50(evaluating(LINEN[whose])), x)
    folded, report = check(function, x)
    assert (len(report.folded), len(report.kept)) == (53, 0)
    assert report.folded[0].name == "LinenResNet50/bn_init"
    assert report.folded[0].detail == "into a convolution (LinenResNet50/conv_init)"
    assert_no_norms(folded, x)
    before, after = operations(function, x), operations(folded, x)
    assert before["multiply"] >= 53
    assert after["add"] == 53 + 16 + 1 + 1  # biases, residuals, the last layer's, the sum of a mean
    assert after["convolution"] == before["convolution"] == 53


@NORMS
def test_a_resnet_50_of_nnx(whose):
    x, model = images(2, 32, 32, 3), networks.NNXResNet50(NNX[whose], nnx.Rngs(0))
    nnx.update(model, networks.with_random_norms(nnx.state(model)))
    model.eval()
    folded, report = check(model, x)
    assert (len(report.folded), len(report.kept)) == (53, 0)
    assert report.folded[1].name == "norm 2"
    assert_no_norms(folded, x)


@NORMS
def test_a_densenet(whose):
    """Each norm reads what others read too; only those right behind a convolution fold."""
    x = images(2, 16, 16, 3)
    folded, report = check(applied(networks.DenseNet(evaluating(LINEN[whose])), x), x)
    assert (len(report.folded), len(report.kept)) == (1 + 4, 1 + 4 + 1)
    reasons = {norm.detail for norm in report.kept}
    print(report)
    assert_no_norms


@NORMS
def test_a_mobilenet(whose):
    x = images(2, 16, 16, 3)
    folded, report = check(applied(networks.MobileNet(evaluating(LINEN[whose])), x), x)
    assert (len(report.folded), len(report.kept)) == (11, 0)
    assert_no_norms(folded, x)
