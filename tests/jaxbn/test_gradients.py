"""Every variant of `cases.py` differentiated: the oracle's derivatives, in both modes, nested, to third order.

All in float64, in which the oracle's numerical derivatives are accurate enough.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import CASES, Case, example, expected, function
from closeness import assert_close
from jax.test_util import check_grads

SMOOTH = [case for case in CASES if case.smooth]


def floats(e):
    """The differentiable arrays of an example as a list, and the way back; no gradient flows to masks."""
    leaves, structure = jax.tree.flatten(e)
    mask = e.arrays.get("mask")
    positions = [i for i, a in enumerate(leaves) if jnp.issubdtype(a.dtype, jnp.inexact) and a is not mask]

    def rebuild(arrays):
        changed = dict(zip(positions, arrays, strict=True))
        return jax.tree.unflatten(structure, [changed.get(i, leaf) for i, leaf in enumerate(leaves)])

    return [leaves[i] for i in positions], rebuild


def outputs(answer):
    """The floating outputs: y, and in training the new mean and variance."""
    return [leaf for leaf in jax.tree.leaves(answer) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]


def numerical_derivatives(function, point, direction, reach=0.02, nodes=11):
    """Derivatives of order 0, 1, 2, ... along a direction: of the polynomial through values at Chebyshev nodes."""
    t = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    pairs = [(oracle.wide(p), reach * oracle.wide(d)) for p, d in zip(point, direction, strict=True)]
    values = np.stack([function([p + s * d for p, d in pairs]) for s in t])
    coefficients = np.polynomial.polynomial.polyfit(t, values, nodes - 1)
    return [c * math.factorial(order) / reach**order for order, c in enumerate(coefficients)]


def random_like(arrays, seed):
    rng = np.random.default_rng(seed)
    pairs = [(rng.normal(size=(2, *a.shape)), a) for a in arrays]
    return [jnp.asarray(d[0] + 1j * d[1] if jnp.iscomplexobj(a) else d[0], a.dtype) for d, a in pairs]


def inner(left, right):
    """Σ Re(left · right), as JAX pairs tangents and cotangents."""
    return sum((a * b).sum().real for a, b in zip(left, right, strict=True))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_derivatives_equal_the_oracles(case):
    """First to third order along a random direction v, of all outputs and of L = ⟨g, outputs⟩, in every mode."""
    point, rebuild = floats(example(case, jnp.float64))
    v = random_like(point, seed=2)
    g = random_like(outputs(jax.eval_shape(function(case), rebuild(point))), seed=3)

    def values(arrays):
        return outputs(function(case)(rebuild(arrays)))

    def loss(arrays):
        return inner(g, values(arrays))

    def along(function):
        return lambda arrays: jax.jvp(function, (arrays,), (v,))[1]

    @jax.jit
    def derivatives(arrays):
        forward_over_reverse = along(jax.grad(loss))
        reverse_over_forward = jax.grad(along(loss))
        reverse_over_reverse = jax.grad(lambda arrays: inner(v, jax.grad(loss)(arrays)))
        products = [f(arrays) for f in (forward_over_reverse, reverse_over_forward, reverse_over_reverse)]
        third = along(lambda arrays: inner(v, forward_over_reverse(arrays)))
        return jax.jvp(values, (arrays,), (v,)), jax.grad(loss)(arrays), products, third(arrays)

    (answer, pushed), gradient, products, third = jax.device_get(derivatives(point))
    assert_close(flat(answer), flat(outputs(expected(case, rebuild(point)))))
    for product in products[1:]:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), product, products[0])

    v, g = jax.device_get((v, g))
    _, first, second_of_values, third_of_values, *_ = oracle_derivatives(case, point, v, rebuild)
    assert_close(flat(pushed), first, condition=10000)
    actual = [inner(gradient, v), inner(products[0], v), third]
    reference = [np.dot(flat(g), order) for order in (first, second_of_values, third_of_values)]
    assert_close(actual, reference, condition=1e6)  # against numerical differences


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", [case for case in SMOOTH if not case.real], ids=lambda case: case.name)
def test_complex_derivatives_equal_the_oracles(case):
    """Forward mode along a random direction v; reverse mode by ⟨g, J·v⟩ = ⟨Jᵀ·g, v⟩."""
    point, rebuild = floats(example(case, jnp.complex128))
    v = random_like(point, seed=2)
    g = random_like(outputs(jax.eval_shape(function(case), rebuild(point))), seed=3)

    @jax.jit
    def both_modes(point):
        def values(arrays):
            return outputs(function(case)(rebuild(arrays)))

        return jax.jvp(values, (point,), (v,)), jax.vjp(values, point)[1](g)[0]

    (answer, pushed), pulled = jax.device_get(both_modes(point))
    assert_close(flat(answer), flat(outputs(expected(case, rebuild(point)))))
    v, g = jax.device_get((v, g))
    assert_close(flat(pushed), oracle_derivatives(case, point, v, rebuild)[1], condition=10000)
    assert_close(inner(pulled, v), inner(g, pushed), condition=100)


def oracle_derivatives(case, point, v, rebuild):
    return numerical_derivatives(lambda arrays: flat(outputs(expected(case, rebuild(arrays)))), point, v)


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", [Case("training"), Case("evaluation", train=False)], ids=lambda case: case.name)
def test_jax_agrees(case):
    """JAX's own check, which shares no code with ours."""
    point, rebuild = floats(example(case, jnp.float64))
    check_grads(lambda *arrays: outputs(function(case)(rebuild(arrays))), point, order=2, atol=1e-4, rtol=1e-4)
