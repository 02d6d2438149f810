"""The memory kept between the forward and the backward pass: arrays that exist anyway, and per-channel vectors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, Example, example, function

from jaxbn import batch_norm, init


def kept(case, e, transform=lambda f: f, of=("params", "x", "residual")):
    """The result; and the kept arrays larger than vectors, each buffer once: the leaves of what `jax.vjp` returns."""
    given = {"params": e.params, "x": e.x, **e.arrays}

    def run(differentiated):
        now = given | differentiated
        return function(case)(Example(now.pop("params"), e.state, now.pop("x"), now))

    (y, _), pull = jax.vjp(transform(run), {name: given[name] for name in of if name in given})
    buffers = {leaf.unsafe_buffer_pointer(): leaf for leaf in jax.tree.leaves(pull)}.values()
    vectors = [leaf for leaf in buffers if leaf.size <= 4 * np.prod(case.features)]
    assert len(vectors) <= 22
    return y, [leaf for leaf in buffers if leaf.size > 4 * np.prod(case.features)]


def assert_only(arrays, given):
    """Assert that each array has the entries of one of the given arrays, a different one for each."""
    names = [
        next((n for n, g in given.items() if a.dtype == g.dtype and np.array_equal(a.ravel(), g.ravel())), str(a))
        for a in arrays
    ]
    assert set(names) <= given.keys()
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_only_what_was_given_is_kept(case):
    e = example(case, jnp.bfloat16)
    y, arrays = kept(case, e, jax.jit)
    if case.pools_first:  # and the entries of x that were picked
        (picked,) = [a for a in arrays if a.size == y.size]
        assert np.isin(picked, e.x).all()
        arrays = [a for a in arrays if a is not picked]
    given = {"x": e.x, **e.arrays}
    if case.name == "residual and relu":  # the sign of the result says enough, and the next layer keeps the result
        del given["residual"]
        arrays = [a for a in arrays if a.unsafe_buffer_pointer() != y.unsafe_buffer_pointer()]
    assert_only(arrays, given)


@pytest.mark.parametrize("of", ["params", "x", "residual"])
def test_also_where_not_all_is_differentiated(of):
    case = next(case for case in CASES if case.name == "residual and relu")
    e = example(case, jnp.bfloat16)
    y, arrays = kept(case, e, jax.jit, of=(of,))
    assert_only(arrays, {"x": e.x, "y": y})


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "compiled"])
def test_x_is_kept_once(train, dtype, transform):
    case = next(case for case in CASES if case.name == ("3-D" if train else "evaluation"))
    e = example(case, dtype)
    _, (x,) = kept(case, e, transform)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, e.x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_evaluation_is_one_pass(activation, dtype):
    """One operation of the compiled program makes an array of the size of x: the result."""
    params, state = init(8)
    x = jnp.ones((32, 9, 9, 8), dtype)
    evaluate = jax.jit(lambda x: batch_norm(params, state, x, False, activation=activation)[0])
    entry = str(evaluate.lower(x).compile().as_text()).partition("ENTRY")[2]
    assert len(re.findall(r"= \w+\[(?:32,9,9,8|2592,8|20736)\]\S* (?!parameter|bitcast)", entry)) == 1
