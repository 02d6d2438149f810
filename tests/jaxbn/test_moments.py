"""`moments` of an array, and `merge` of the moments of its parts, against float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

import jaxbn
from jaxbn import Moments

SHAPE = (12, 5, 3)
KINDS = {"near 0": (0.0, 1.0), "far": (1e6, 1.0), "small": (0.0, 1e-12), "large": (3e10, 1e10)}


def array(kind: str, seed: int = 0) -> np.ndarray:
    mean, deviation = KINDS[kind]
    return np.random.default_rng(seed).normal(mean, deviation, SHAPE).astype(np.float32)


def exact(x: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    w = np.ones_like(x) if weights is None else np.broadcast_to(weights, SHAPE).reshape(x.shape).astype(np.float64)
    mean = np.average(x, 0, w)
    return w.sum(0), mean, np.average((x - mean) ** 2, 0, w)


def check(found: Moments, expected: tuple[np.ndarray, ...]) -> None:
    for actual, wanted in zip((found.weight, found.mean, found.var), expected, strict=True):
        assert actual.shape == wanted.shape
        np.testing.assert_allclose(np.asarray(actual, np.float64), wanted, 2e-6, 1e-6 * np.sqrt(expected[2].max()))


@pytest.mark.parametrize("kind", KINDS)
def test_of_an_array(kind):
    x = array(kind)
    check(jaxbn.moments(x), exact(x))
    weights = np.random.default_rng(1).uniform(0, 2, (12, 1, 1)).astype(np.float32)
    check(jaxbn.moments(x, mask=weights), exact(x, weights))
    check(jaxbn.moments(np.moveaxis(x, -1, 0), axis=0), exact(x))


@pytest.mark.parametrize("kind", KINDS)
def test_of_parts_is_that_of_the_whole(kind):
    x = array(kind)
    expected = exact(x)
    check(jaxbn.merge([jaxbn.moments(part) for part in np.split(x, [1, 4, 11])]), expected)
    check(jaxbn.merge(jax.vmap(jaxbn.moments)(x.reshape(4, 3, 5, 3))), expected)

    def step(union: Moments, part: jax.Array) -> tuple[Moments, None]:
        return jaxbn.merge((union, jaxbn.moments(part))), None

    nothing = jaxbn.moments(np.zeros((0, 3), np.float32))
    check(jax.lax.scan(step, nothing, jnp.asarray(x))[0], expected)


def test_of_parts_that_are_far_apart():
    x = array("near 0") + np.array([0, 1e4, -1e6], np.float32)[np.arange(12) % 3][:, None, None]
    parts = [jaxbn.moments(x[i::3]) for i in range(3)]
    check(jaxbn.merge(parts), exact(x))
    check(jaxbn.merge(parts[::-1]), exact(x))


def test_a_part_without_weight_has_no_influence():
    x = array("far")
    nothing = jaxbn.moments(np.full_like(x, np.nan), mask=np.zeros((12, 1, 1), bool))
    assert (nothing.weight == 0).all()
    check(jaxbn.merge([nothing, jaxbn.moments(x), nothing]), exact(x))
    assert (jaxbn.merge([nothing]).weight == 0).all()


def test_known_numbers():
    """Moments as a client would send them, by Chan, Golub & LeVeque's formula."""
    mean = jnp.array([1.0, 2.0])
    a = Moments(jnp.array(10.0), mean, jnp.zeros(2), jnp.array([4.0, 0.0]))
    b = Moments(jnp.array(30.0), mean + 4, jnp.zeros(2), jnp.array([0.0, 8.0]))
    found = jaxbn.merge([a, b])
    assert_close(found.mean, np.array([4.0, 5.0]))
    assert_close(found.var, np.array([1.0 + 3.0, 6.0 + 3.0]))  # Σ W σ² / W + 10 · 30 · 4² / 40²


def test_they_are_what_batch_norm_normalises_with():
    x = jnp.asarray(array("far"))
    found = jaxbn.moments(x)
    y, state = jaxbn.batch_norm(*jaxbn.init(3), x, True, momentum=0.0)
    np.testing.assert_array_equal(state.mean, found.mean)
    np.testing.assert_array_equal(state.var, found.var)
    shift, offset, root = (np.asarray(v) for v in (found.shift, found.offset, np.sqrt(found.var + 1e-5)))
    assert_close(y, ((np.asarray(x) - shift) - offset) / root, condition=4)


def test_gradients():
    """dμ/dx = 1/n and dσ²/dx = 2 (x − μ)/n, also through a merge."""
    x = array("near 0")
    n = x.shape[0] * x.shape[1]

    def merged(x):
        return jaxbn.merge([jaxbn.moments(x[:5]), jaxbn.moments(x[5:])])

    for function in (jaxbn.moments, merged):
        assert_close(jax.grad(lambda x, f=function: f(x).mean.sum())(x), np.full(SHAPE, 1 / n), condition=4)
        expected = 2 * (x - exact(x)[1]) / n
        assert_close(jax.grad(lambda x, f=function: f(x).var.sum())(x), expected, condition=4)


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ([], ValueError, "one or more"),
        ([1.0], TypeError, "sequence of jaxbn.Moments"),
        (3, TypeError, "sequence of jaxbn.Moments"),
        ([jaxbn.init(3)[1]], TypeError, "got .'BatchNormState'"),
        ([Moments(*[jnp.ones(n)] * 4) for n in (2, 3)], ValueError, "the same channels"),
    ],
)
def test_errors_of_merge(parts: Any, error, words):
    with pytest.raises(error, match=words):
        jaxbn.merge(parts)


def test_errors_of_moments():
    with pytest.raises(TypeError, match="x must be floating or complex"):
        jaxbn.moments(np.ones((2, 3), int))
    with pytest.raises(ValueError, match="axis must name"):
        jaxbn.moments(np.ones((2, 3), np.float32), axis=2)
