"""Running statistics keep their type in both modules, as the carry of a loop requires."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import RELATIVE, assert_close
from equivalence import batch
from flax import nnx

import jaxbn.linen
import jaxbn.nnx
from jaxbn import BatchNormParams, cumulative

KEY = jax.random.key(0)
PLAIN = BatchNormParams(None, None)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


def cast(tree: Any, dtype: Any) -> Any:
    """The tree with its floating leaves in another type."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def compare(statistics: Any, dtype: Any, momentum: Any, xs: jax.Array) -> None:
    """Assert that the statistics have this type and equal the oracle's, rounded to it at each step."""
    state = oracle.State(np.zeros(xs.shape[-1]), np.ones(xs.shape[-1]), 0)
    for x in xs:
        _, state = oracle.batch_norm(PLAIN, state, x, True, momentum=momentum)
        mean, var = (oracle.wide(jnp.asarray(leaf, dtype)) for leaf in (state.mean, state.var))
        state = oracle.State(mean, var, state.count)
    relative = {jnp.dtype(jnp.bfloat16): 2 * RELATIVE["bfloat16"]}.get(jnp.dtype(dtype), RELATIVE["float32"])
    for name, expected in (("mean", state.mean), ("var", state.var)):
        assert statistics[name].dtype == dtype
        np.testing.assert_allclose(oracle.wide(statistics[name]), expected, relative, relative)


TYPES = pytest.mark.parametrize(
    ("kept", "given"),
    [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float64"), ("float64", "float32")],
)
MOMENTA = pytest.mark.parametrize("momentum", [0.5, cumulative()], ids=["number", "schedule"])


@MOMENTA
@TYPES
@pytest.mark.usefixtures("x64")
def test_a_scan_over_an_nnx_module(kept, given, momentum):
    model = jaxbn.nnx.BatchNorm(6, momentum=momentum, rngs=nnx.Rngs(0))
    nnx.update(model, cast(nnx.state(model), kept))
    graph, state = nnx.split(model)
    xs = batch(given, (3, 8, 6))

    def step(state, x):
        model = nnx.merge(graph, state)
        y = model(x)
        return nnx.state(model), y

    state, ys = jax.lax.scan(step, state, xs)
    assert ys.dtype == jnp.promote_types(kept, given)
    compare(nnx.to_pure_dict(state), kept, oracle.cumulative() if callable(momentum) else momentum, xs)


@MOMENTA
@TYPES
@pytest.mark.usefixtures("x64")
def test_a_scan_over_a_linen_module(kept, given, momentum):
    module: Any = jaxbn.linen.BatchNorm(use_running_average=False, momentum=momentum)
    xs = batch(given, (3, 8, 6))
    variables = cast(module.init(KEY, xs[0]), kept)

    def step(stats, x):
        y, updates = module.apply({**variables, "batch_stats": stats}, x, mutable=["batch_stats"])
        return updates["batch_stats"], y

    stats, ys = jax.lax.scan(step, variables["batch_stats"], xs)
    assert ys.dtype == jnp.promote_types(kept, given)
    compare(stats, kept, oracle.cumulative() if callable(momentum) else momentum, xs)


def test_statistics_made_in_the_type_of_the_parameters():
    """`force_float32_reductions=False`; half precision is still normalised in float32."""
    module: Any = jaxbn.linen.BatchNorm(False, param_dtype=jnp.bfloat16, force_float32_reductions=False, momentum=0.5)
    x = batch(shape=(8, 6)) + 100
    variables = module.init(KEY, x)
    y, updates = module.apply(variables, x, mutable=["batch_stats"])
    compare(updates["batch_stats"], jnp.bfloat16, 0.5, x[None])
    assert_close(y, oracle.batch_norm(PLAIN, None, x, True)[0])


def test_a_real_mean_becomes_complex():
    """The one exception: the imaginary part would be lost."""
    x = batch("complex64", (8, 6))
    module = jaxbn.nnx.BatchNorm(6, rngs=nnx.Rngs(0))
    nnx.update(module, cast(nnx.state(module), jnp.bfloat16))
    for _ in range(2):
        module(x)
        assert module.mean.dtype == jnp.complex64
        assert module.var.dtype == jnp.bfloat16


@pytest.mark.usefixtures("x64")
def test_float64_is_normalised_exactly():
    """For every type of the statistics; Flax rounds them to float32 as well, with a warning."""
    x = batch("float64") + 1e6
    module = jaxbn.nnx.BatchNorm(6, momentum=0.5, rngs=nnx.Rngs(0))
    y = module(x)
    exact, state = oracle.batch_norm(PLAIN, oracle.State(np.zeros(6), np.ones(6), 0), x, True, momentum=0.5)
    assert y.dtype == jnp.float64
    assert_close(y, exact, condition=1000)
    assert_close(module.mean[...], state.mean)
    assert_close(module.var[...], state.var, size=0)
    with pytest.warns(FutureWarning, match="cannot safely cast value from dtype=float64 to dtype=float32"):
        nnx.BatchNorm(6, rngs=nnx.Rngs(0))(x)


@pytest.mark.parametrize("jit", [False, True])
def test_complex_statistics_keep_their_imaginary_part(jit):
    """Flax drops it, with a warning that it will be an error."""
    x = batch("complex64")
    module = jaxbn.nnx.BatchNorm(6, momentum=0.5, rngs=nnx.Rngs(0))
    call = nnx.jit(lambda module, x, **given: module(x, **given), static_argnames="use_running_average")
    call = call if jit else lambda module, x, **given: module(x, **given)
    y = call(module, x)
    exact, state = oracle.batch_norm(PLAIN, oracle.State(np.zeros(6), np.ones(6), 0), x, True, momentum=0.5)
    assert_close(y, exact)
    assert_close(module.mean[...], state.mean)
    assert_close(module.var[...], state.var, size=0)
    evaluated, _ = oracle.batch_norm(PLAIN, state, x, False)
    assert_close(call(module, x, use_running_average=True), evaluated, condition=10)
    imaginary = pytest.warns(np.exceptions.ComplexWarning, match="discards the imaginary part")
    with imaginary, pytest.warns(FutureWarning, match="cannot safely cast value from dtype=complex64"):
        nnx.BatchNorm(6, rngs=nnx.Rngs(0))(x)
