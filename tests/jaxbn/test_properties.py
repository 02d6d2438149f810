"""Random inputs and options give the oracle's answer or a documented error."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close, relative_tolerance
from hypothesis import example, given
from hypothesis import strategies as st

from jaxbn import BatchNormParams, BatchNormState, batch_norm

VALUES = st.one_of(
    st.floats(-1e4, 1e4, width=16, allow_subnormal=False),
    st.sampled_from([0.0, 1.0, 1e4, -1e4, 1e-4]),
)


@st.composite
def inputs(draw):
    """A shape, feature axes, a type, and values: noise about an offset, with some entries drawn one by one."""
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=4)))
    axis = draw(st.lists(st.integers(-len(shape), len(shape) - 1), max_size=len(shape)))
    dtype = draw(st.sampled_from(["float32", "bfloat16", "float16", "complex64"]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(draw(VALUES), draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0])), shape)
    if x.size:
        for value in draw(st.lists(VALUES, max_size=4)):
            x.flat[rng.integers(x.size)] = value
    if dtype == "complex64":
        x = x + 1j * rng.normal(size=shape)
    options = {"epsilon": draw(st.sampled_from([1e-5, 1e-3, 1.0])), "unbiased": draw(st.booleans()),
               "momentum": draw(st.sampled_from([0.0, 0.3, 0.99, 1.0]))}  # fmt: skip
    return jnp.asarray(x, dtype), tuple(axis), options


@given(inputs(), st.booleans())
@example((jnp.zeros((3, 3)), (0, -2), {}), True)
@example((jnp.zeros((1, 3)), (1,), {}), True)
def test_the_oracles_answer_or_a_documented_error(drawn, train):
    x, axis, options = drawn
    normalised = {a % x.ndim for a in axis}
    features = tuple(x.shape[a] for a in sorted(normalised))
    number = int(np.prod([n for a, n in enumerate(x.shape) if a not in normalised]))
    rng = np.random.default_rng(0)
    params = BatchNormParams(*jnp.asarray(rng.uniform(0.5, 2, (2, *features)), jnp.float32))
    mean = jnp.asarray(rng.normal(size=features), jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32)
    state = BatchNormState(mean, jnp.asarray(rng.uniform(0.5, 2, features), jnp.float32), jnp.asarray(0))

    @jax.jit
    def run(params, state, x):
        return batch_norm(params, state, x, train, axis=axis, **options)

    if len(normalised) < len(axis):
        with pytest.raises(ValueError, match="axis must name each feature axis once"):
            run(params, state, x)
        return
    if train and number == 1:
        with pytest.raises(ValueError, match="more than one value per channel"):
            run(params, state, x)
        return

    y, new = run(params, state, x)
    if number == 0:
        assert y.shape == x.shape
        jax.tree.map(np.testing.assert_array_equal, new, state)
        return
    y_oracle, new_oracle = oracle.batch_norm(params, state, x, train, axis=axis, **options)
    assert y.dtype == x.dtype
    relative = max(relative_tolerance(y), 1e-5)
    largest = np.abs(y_oracle).max(initial=1)
    absolute = 1e-2 * relative + 1e-6 * largest
    np.testing.assert_allclose(oracle.wide(y), y_oracle, rtol=relative, atol=absolute, strict=True)
    spread = np.abs(oracle.wide(x)).max(initial=1)
    np.testing.assert_allclose(oracle.wide(new.mean), new_oracle.mean, rtol=1e-5, atol=1e-6 * spread)
    assert_close(new.var, new_oracle.var, condition=5, size=1e-5)
    assert new.count == new_oracle.count
