"""`jaxbn.linen.BatchNorm` as a drop-in replacement for `flax.linen.BatchNorm`: equal calls, equal results."""

import dataclasses
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import RELATIVE, assert_close
from equivalence import assert_same, batch

import jaxbn.linen
from jaxbn import BatchNormParams, BatchNormState

OURS: Any = jaxbn.linen.BatchNorm
FLAX: Any = nn.BatchNorm
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly, and ours is to do the same: not strict here."""


def trained(module, x, steps=3):
    """The variables of a module, its outputs in training and evaluation, and its gradients."""
    differentiable = jnp.issubdtype(x.dtype, jnp.inexact)
    g = batch("float32", x.shape, seed=9)

    def loss(params, x, stats):
        y, updates = module.apply(
            {"params": params, "batch_stats": stats}, x, use_running_average=False, mutable=["batch_stats"]
        )
        return jnp.sum((y * g).real), (y, updates["batch_stats"])

    train = jax.jit(jax.value_and_grad(loss, (0, 1) if differentiable else 0, has_aux=True))
    evaluate = jax.jit(lambda variables: module.apply(variables, x, use_running_average=True))
    fresh = jax.jit(lambda: module.init(KEY, x, use_running_average=False))()
    params, stats = fresh.get("params", {}), fresh["batch_stats"]
    seen = []
    for step in range(steps):
        (_, (y, stats)), gradients = train(params, x + step if differentiable else x, stats)
        seen.append((y, stats, gradients))
    return fresh, seen, evaluate(fresh), evaluate({"params": params, "batch_stats": stats})


OPTIONS = {
    "defaults": {},
    "axis 1": {"axis": 1},
    "two axes": {"axis": (1, 2)},
    "two axes, from the end": {"axis": (-1, -2)},
    "no scale": {"use_scale": False},
    "no bias": {"use_bias": False},
    "neither": {"use_scale": False, "use_bias": False},
    "momentum and epsilon": {"momentum": 0.5, "epsilon": 0.1},
    "slow variance": {"use_fast_variance": False},
    "parameters in bfloat16": {"param_dtype": jnp.bfloat16},
    "initialisers": {"scale_init": nn.initializers.normal(), "bias_init": nn.initializers.uniform()},
    "no forced float32": {"force_float32_reductions": False},
}
REAL = {
    "to float32": {"dtype": jnp.float32},
    "to bfloat16": {"dtype": jnp.bfloat16},
    "to float16": {"dtype": jnp.float16},
}


@pytest.mark.parametrize("options", OPTIONS | REAL)
def test_equals_flax_in_float32(options):
    options = (OPTIONS | REAL)[options]
    assert_same(trained(OURS(**options), batch()), trained(FLAX(**options), batch()))


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("bfloat16", "defaults"),
        ("bfloat16", "two axes"),
        ("bfloat16", "neither"),
        ("bfloat16", "parameters in bfloat16"),
        ("bfloat16", "to bfloat16"),
        ("bfloat16", "to float32"),
        ("float16", "defaults"),
        ("float16", "parameters in bfloat16"),
    ],
)
def test_equals_flax_in_half_precision(dtype, options):
    options = (OPTIONS | REAL)[options]
    assert_same(trained(OURS(**options), batch(dtype)), trained(FLAX(**options), batch(dtype)))


@pytest.mark.parametrize("options", ["defaults", "two axes", "no scale", "neither"])
def test_equals_flax_in_complex64(options):
    options = OPTIONS[options]
    assert_same(trained(OURS(**options), batch("complex64")), trained(FLAX(**options), batch("complex64")))


@pytest.mark.parametrize("options", [{}, {"force_float32_reductions": False}], ids=str)
def test_complex_statistics_keep_their_imaginary_part(options):
    """Without `force_float32_reductions`, Flax evaluates with the real part alone."""
    x = batch("complex64")
    module = OURS(momentum=0.5, **options)
    variables = module.init(KEY, x, use_running_average=False)
    _, updates = module.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    y = module.apply(variables | updates, x, use_running_average=True)
    params, state = BatchNormParams(**variables["params"]), oracle.State(np.zeros(6), np.ones(6), 0)
    _, state = oracle.batch_norm(params, state, x, True, momentum=0.5)
    assert_close(np.asarray(y), oracle.batch_norm(params, state, x, False)[0], condition=10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("options", [{}, {"param_dtype": jnp.float64}, {"dtype": jnp.float32}], ids=str)
def test_equals_flax_in_float64(options):
    """Equal up to the type of the statistics: Flax's take the type of the input, ours keep theirs."""
    x = batch("float64")
    fresh, seen, *evaluated = trained(FLAX(**options), x)
    seen = [(y, jax.tree.map(lambda s: s.astype(jnp.float32), stats), gradients) for y, stats, gradients in seen]
    assert_same(trained(OURS(**options), x), (fresh, seen, *evaluated), least=10 * RELATIVE["float32"])


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("int32", {}),
        ("int32", {"use_scale": False, "use_bias": False}),
        ("int32", {"dtype": jnp.float16}),
        ("uint8", {}),
        ("bool", {}),
    ],
    ids=str,
)
def test_integers_are_converted_as_in_flax(dtype, options):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 200, (8, 6)), dtype)
    assert_same(trained(OURS(**options), x), trained(FLAX(**options), x))


def test_integers_are_not_rounded_to_the_type_of_the_result():
    """bfloat16 cannot hold 10000 ± 20, but it holds the normalised values."""
    x = jnp.asarray(np.random.default_rng(0).integers(9980, 10020, (64, 3)))
    y, _ = OURS(False, dtype=jnp.bfloat16).init_with_output(KEY, x)
    exact, _ = oracle.batch_norm(BatchNormParams(None, None), None, x, True)
    assert_close(y, exact, condition=2)


def test_every_argument_of_flax_in_its_order_with_its_default():
    flaxs = [(f.name, f.default, f.kw_only) for f in dataclasses.fields(FLAX)]
    ours = [(f.name, f.default, f.kw_only) for f in dataclasses.fields(OURS)]
    functions = {nn.initializers.zeros: "zeros", nn.initializers.ones: "ones"}
    names = [name for name, *_ in flaxs]
    shared = [field for field in ours if field[0] in names]
    for ours_field, flax_field in zip(shared, flaxs, strict=True):
        assert ours_field[0] == flax_field[0]
        if ours_field[0] != "parent":  # each module class has a sentinel for that
            assert ours_field[1] is flax_field[1] or ours_field[1] == flax_field[1] or ours_field[1] in functions
    assert all(kw_only for name, _, kw_only in ours if name not in names)


def test_positional_arguments():
    initialisers = nn.initializers.zeros, nn.initializers.normal()
    arguments = (None, 1, 0.5, 0.1, jnp.float32, jnp.bfloat16, False, True, *initialisers)
    assert_same(trained(OURS(*arguments), batch()), trained(FLAX(*arguments), batch()))


def test_custom_initialisers_draw_the_same_numbers():
    options = {"scale_init": nn.initializers.normal(), "bias_init": nn.initializers.normal()}
    ours, flaxs = (norm(True, **options).init(KEY, batch()) for norm in (OURS, FLAX))
    jax.tree.map(np.testing.assert_array_equal, ours, flaxs)


@pytest.mark.parametrize("at_call", [True, False])
@pytest.mark.parametrize("use_running_average", [True, False])
def test_use_running_average_at_the_call_or_at_construction(use_running_average, at_call):
    x = batch()
    answers = []
    for norm in (OURS, FLAX):
        variables = norm(True).init(KEY, x)
        module = norm() if at_call else norm(use_running_average)
        given = (use_running_average,) if at_call else ()
        answers.append(module.apply(variables, x, *given, mutable=["batch_stats"]))
    assert_same(*answers)


@pytest.mark.parametrize("norm", [OURS, FLAX])
@pytest.mark.parametrize(("constructed", "called"), [(None, None), (True, False), (True, True)])
def test_use_running_average_must_be_given_once(norm, constructed, called):
    with pytest.raises(ValueError, match="use_running_average"):
        norm(constructed).init(KEY, batch(), use_running_average=called)


@pytest.mark.parametrize("norm", [OURS, FLAX])
def test_statistics_must_be_mutable_in_training(norm):
    variables = norm(True).init(KEY, batch())
    with pytest.raises(flax.errors.ModifyScopeVariableError, match="batch_stats"):
        norm(False).apply(variables, batch())
    norm(True).apply(variables, batch())


@pytest.mark.parametrize("rows", [1, 8])
def test_initialising_does_not_update_the_statistics(rows):
    x = 3 + batch(shape=(rows, 6))
    y, variables = OURS(False).init_with_output(KEY, x)
    assert y.shape == x.shape
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, variables, FLAX(False).init(KEY, x))
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(6))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(6))


def test_evaluation_is_exported_for_any_number_of_rows():
    """Also for the outputs of a dense layer, of which only the rows are reduced."""
    from jax import export

    variables = OURS(True).init(KEY, batch(shape=(4, 6)))
    (rows,) = export.symbolic_shape("rows")
    function = jax.jit(lambda x: OURS(True).apply(variables, x))
    exported = export.export(function)(jax.ShapeDtypeStruct((rows, 6), jnp.float32))
    for count in (1, 5):
        x = batch(shape=(count, 6))
        np.testing.assert_array_equal(exported.call(x), function(x))


def test_unbiased():
    """The option that Flax does not have: the running variance takes the n/(n − 1) estimate."""
    x = batch(shape=(8, 6))
    module = OURS(False, momentum=0.75, unbiased=True)
    variables = module.init(KEY, x)
    y, updates = module.apply(variables, x, mutable=["batch_stats"])
    params = BatchNormParams(**variables["params"])
    state = BatchNormState(**variables["batch_stats"], count=jnp.asarray(0))
    y_oracle, state_oracle = oracle.batch_norm(params, state, x, True, momentum=0.75, unbiased=True)
    assert_close(y, y_oracle)
    statistics = updates["batch_stats"]
    assert_close(statistics["mean"], state_oracle.mean)
    assert_close(statistics["var"], state_oracle.var, size=0)


def test_exact_where_flax_is_not():
    """|mean|/std = 10⁴: E[x²] − E[x]² has no digit left; `use_fast_variance` makes no difference to ours."""
    x = batch(shape=(256, 6)) + 2e4
    exact, _ = oracle.batch_norm(BatchNormParams(None, None), None, x, True)
    for fast in (True, False):
        y, _ = OURS(False, use_fast_variance=fast).init_with_output(KEY, x)
        np.testing.assert_allclose(y, exact, rtol=0, atol=2e-6 * np.abs(exact).max())
    worse, _ = FLAX(False).init_with_output(KEY, x)
    assert np.abs(worse - exact).max() > 1
