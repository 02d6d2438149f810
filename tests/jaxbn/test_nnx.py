"""`jaxbn.nnx.BatchNorm` as a drop-in replacement for `flax.nnx.BatchNorm`: equal calls, equal results."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close, relative_tolerance
from equivalence import assert_same, batch
from flax import nnx

import jaxbn.nnx
from jaxbn import BatchNormParams, BatchRenorm

OURS: Any = jaxbn.nnx.BatchNorm
FLAX: Any = nnx.BatchNorm
NORMS = pytest.mark.parametrize("norm", [OURS, FLAX], ids=["ours", "Flax"])
PLAIN = BatchNormParams(None, None)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly, and ours is to do the same: not strict here."""


def make(norm, features: int | tuple[int, ...] = 6, **options: Any):
    return norm(features, rngs=nnx.Rngs(0), **options)


def values(module):
    """The variables: their paths, kinds and values."""
    return {(*path, type(variable).__name__): variable[...] for path, variable in nnx.to_flat_state(nnx.state(module))}


def trained(norm, x, steps=3, features=6, mask=None, **options: Any):
    """The variables of a module, its outputs in training and evaluation, and its gradients."""
    differentiable = jnp.issubdtype(x.dtype, jnp.inexact)
    g = batch("float32", x.shape, seed=9)
    module = make(norm, features, **options)
    fresh = values(module)

    def loss(module, x):
        y = module(x, mask=mask)
        return jnp.sum((y * g).real), y

    train = nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1) if differentiable else 0, has_aux=True))
    evaluate = nnx.jit(lambda module: module(x, use_running_average=True))
    seen = [evaluate(module)]
    for step in range(steps):
        (_, y), gradients = train(module, x + step if differentiable else x)
        seen.append((y, jax.tree.leaves(gradients), values(module)))
    return fresh, seen, evaluate(module)


OPTIONS = {
    "defaults": {},
    "axis 1": {"axis": 1, "features": 5},
    "axis 0": {"axis": 0, "features": 8},
    "no scale": {"use_scale": False},
    "no bias": {"use_bias": False},
    "neither": {"use_scale": False, "use_bias": False},
    "momentum and epsilon": {"momentum": 0.5, "epsilon": 0.1},
    "slow variance": {"use_fast_variance": False},
    "parameters in bfloat16": {"param_dtype": jnp.bfloat16},
    "initialisers": {"scale_init": nnx.initializers.normal(), "bias_init": nnx.initializers.uniform()},
    "mask": {"mask": np.arange(8)[:, None, None] < 5},
    "to float32": {"dtype": jnp.float32},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_equals_flax_in_float32(options):
    options = OPTIONS[options]
    assert_same(trained(OURS, batch(), **options), trained(FLAX, batch(), **options))


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("bfloat16", "defaults"),
        ("bfloat16", "neither"),
        ("bfloat16", "parameters in bfloat16"),
        ("bfloat16", "to float32"),
        ("bfloat16", "mask"),
        ("float16", "defaults"),
    ],
)
def test_equals_flax_in_half_precision(dtype, options):
    options = OPTIONS[options]
    assert_same(trained(OURS, batch(dtype), **options), trained(FLAX, batch(dtype), **options))


@pytest.mark.parametrize("x", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_close_to_flax_in_a_dtype_of_half_precision(x, dtype):
    """Close to the precision of that type: Flax rounds x, the parameters and their gradients to it, ours does not."""
    ours, flaxs = (trained(norm, batch(x), dtype=dtype) for norm in (OURS, FLAX))
    assert_same(ours, flaxs, least=2 * relative_tolerance(jnp.zeros((), dtype)))


@pytest.mark.parametrize(("dtype", "options"), [("int32", {}), ("uint8", {"use_scale": False}), ("bool", {})], ids=str)
def test_integers_are_converted_as_in_flax(dtype, options):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 200, (8, 6)), dtype)
    assert_same(trained(OURS, x, **options), trained(FLAX, x, **options))


@pytest.mark.usefixtures("x64")
def test_float32_under_x64_equals_flax():
    assert_same(trained(OURS, batch()), trained(FLAX, batch()))


def test_exact_where_flax_is_not():
    """|mean|/std = 10⁴: E[x²] − E[x]² has no digit left; `use_fast_variance` makes no difference to ours."""
    x = batch(shape=(256, 6)) + 2e4
    exact, _ = oracle.batch_norm(PLAIN, None, x, True)
    for fast in (True, False):
        np.testing.assert_allclose(make(OURS, use_fast_variance=fast)(x), exact, atol=2e-6 * np.abs(exact).max())
    assert np.abs(make(FLAX)(x) - exact).max() > 1


def test_half_precision_evaluates_with_whole_statistics():
    """With `dtype=bfloat16` Flax rounds x and the running statistics: of a mean of 100, 0.25 either way."""
    x = batch(shape=(64, 6)) + 100
    errors = []
    for norm in (OURS, FLAX):
        module = make(norm, momentum=0.0, dtype=jnp.bfloat16)
        y_train = module(x)
        y = module(x, use_running_average=True)
        assert y.dtype == y_train.dtype == jnp.bfloat16
        exact, _ = oracle.batch_norm(PLAIN, None, x, True)
        errors.append([np.abs(oracle.wide(output) - exact).max() for output in (y_train, y)])
    assert max(errors[0]) < np.abs(exact).max() * 2**-8
    assert min(errors[1]) > 0.1


def test_every_argument_of_flax_with_its_kind_and_default():
    for function in ("__init__", "__call__", "set_view"):
        ours, flaxs = (inspect.signature(getattr(norm, function)).parameters for norm in (OURS, FLAX))
        shared = [(p.name, p.kind, p.default) for p in ours.values() if p.name in flaxs]
        assert shared == [(p.name, p.kind, p.default) for p in flaxs.values()]
        assert all(p.kind is p.KEYWORD_ONLY for name, p in ours.items() if name not in flaxs)


def test_attributes_of_flax_hold_what_was_given():
    given: dict[str, Any] = {"axis": 1, "momentum": 0.5, "dtype": jnp.float16, "axis_name": "batch", "use_bias": False}
    ours, flaxs = (vars(make(norm, **given)) for norm in (OURS, FLAX))
    for name, value in flaxs.items():
        if not name.startswith("_") and not isinstance(value, nnx.Variable):
            assert ours[name] == value, name


def test_custom_initialisers_draw_the_same_numbers():
    draw = nnx.initializers.normal()
    ours, flaxs = (values(make(norm, scale_init=draw, bias_init=draw)) for norm in (OURS, FLAX))
    jax.tree.map(np.testing.assert_array_equal, ours, flaxs)
    assert np.ptp(ours["scale", "Param"]) > 0


@pytest.mark.parametrize("called", [None, True, False])
@pytest.mark.parametrize("constructed", [None, True, False])
def test_the_call_takes_precedence_over_the_constructor(constructed, called):
    answers = []
    for norm in (OURS, FLAX):
        module = make(norm, use_running_average=constructed)
        if constructed is None and called is None:
            with pytest.raises(ValueError, match="use_running_average"):
                module(batch())
        else:
            answers.append((module(batch(), called), values(module)))
    if answers:
        assert_same(*answers)


def test_modes_are_set_for_a_whole_model():
    x = batch(shape=(8, 6))
    answers = []
    for norm in (OURS, FLAX):
        model = nnx.Sequential(nnx.Linear(6, 6, rngs=nnx.Rngs(1)), make(norm, momentum=0.5), nnx.relu)
        outputs = [model(x)]
        model.eval()
        outputs.append(model(x))
        model.train()
        outputs.append(model(x))
        model.set_attributes(use_running_average=True)
        outputs.append(model(x))
        evaluation, training = (nnx.view(model, use_running_average=use) for use in (True, False))
        outputs += [evaluation(x), training(x), evaluation(x)]  # the views share the variables
        answers.append((outputs, values(model)))
    assert_same(*answers)


def test_the_view_is_explained():
    info = nnx.view_info(make(OURS))
    assert info.startswith("BatchNorm:\n  use_running_average: bool | None = None\n    if True, normalise with")


@NORMS
def test_construction_leaves_the_statistics_at_their_beginning(norm):
    module = make(norm)
    np.testing.assert_array_equal(module.mean[...], np.zeros(6))
    np.testing.assert_array_equal(module.var[...], np.ones(6))
    assert_close(module(batch(), use_running_average=True), batch() / np.sqrt(1 + 1e-5))
    np.testing.assert_array_equal(module.mean[...], np.zeros(6))


@NORMS
def test_a_promote_dtype_of_ones_own(norm):
    """It is called with all arrays at once, and the type that it returns for x decides that of the result."""
    seen: list[Any] = []

    def promote(arrays, *, dtype):
        seen.append([None if a is None else a.dtype for a in arrays] + [dtype])
        return tuple(a if a is None else a.astype(jnp.float16) for a in arrays)

    module = make(norm, promote_dtype=promote, use_bias=False)
    y = module(batch())
    assert seen == [[jnp.float32] * 4 + [None, None]]
    assert y.dtype == jnp.float16
    assert module.mean.dtype == module.var.dtype == jnp.float32
    exact, _ = oracle.batch_norm(PLAIN, None, batch("float16"), True)
    assert_close(y, exact, condition=2)


def test_a_promote_dtype_that_leaves_all_as_it_is():
    def identity(arrays, *, dtype):
        return arrays

    x = batch("bfloat16")
    options = {"promote_dtype": identity, "param_dtype": jnp.bfloat16}
    assert_same(trained(OURS, x, **options), trained(FLAX, x, **options))
    assert make(OURS, **options)(x).dtype == jnp.bfloat16


def test_several_feature_axes():
    """Flax does not support several feature axes here."""
    x = batch(shape=(8, 2, 4, 3))
    module = make(OURS, (2, 3), axis=[1, -1], momentum=0.0)
    exact, state = oracle.batch_norm(PLAIN, oracle.State(np.zeros((2, 3)), np.ones((2, 3)), 0), x, True, axis=(1, 3))
    assert_close(module(x), exact)
    assert module.scale.shape == (2, 3)
    assert state.mean.shape == module.mean.shape == (2, 3)


def test_a_mask_may_hide_what_is_not_finite():
    x = batch(shape=(8, 6)).at[5:].set(jnp.nan)
    for mask in (np.arange(8)[:, None] < 5, (np.arange(8)[:, None] < 5) * 2.0):
        module = make(OURS, momentum=0.0)
        y = module(x, mask=mask)
        assert_close(y[:5], oracle.batch_norm(PLAIN, None, x[:5], True)[0])
        assert_close(module.var[...], np.var(x[:5], 0), condition=5, size=0)


SCHEDULES = {
    "momentum": ({"momentum": jaxbn.cumulative()}, {"momentum": oracle.cumulative()}),
    "renorm": ({"renorm": BatchRenorm(lambda t: 1.0 + t, lambda t: 0.5 * t)},) * 2,
    "both": ({"momentum": jaxbn.debiased(0.8), "renorm": BatchRenorm(lambda t: 1.0 + t, 0.5)},) * 2,
}


@pytest.mark.parametrize("options", SCHEDULES)
def test_schedules_have_a_count(options):
    ours, reference = SCHEDULES[options]
    module, state = make(OURS, **ours), oracle.State(np.zeros(6), np.ones(6), 0)
    call = nnx.jit(lambda module, x: module(x))
    for step in range(3):
        x = batch(shape=(8, 6), seed=step) * (1 + step)
        exact, state = oracle.batch_norm(PLAIN, state, x, True, **reference)
        assert_close(call(module, x), exact, condition=3)
    assert values(module)["count", "BatchStat"] == 3
    assert module.count.dtype == jnp.int32
    assert_close(module.mean[...], state.mean)
    assert_close(module.var[...], state.var, condition=5, size=0)


def test_without_a_schedule_there_is_no_count():
    module = make(OURS, renorm=BatchRenorm(2.0, 1.0))
    assert module.count is None
    assert set(values(module)) == set(values(make(FLAX)))


def test_the_other_options_reach_the_core():
    """Against the oracle: groups, the unbiased variance, a residual and an activation, in one call."""
    x, residual = batch(shape=(8, 6)), batch(shape=(8, 6), seed=1)
    module = make(OURS, momentum=0.5, unbiased=True, ghost_batch_size=4, activation="relu")
    y = module(x, residual=residual)
    exact, state = oracle.batch_norm(
        PLAIN,
        oracle.State(np.zeros(6), np.ones(6), 0),
        x,
        True,
        momentum=0.5,
        unbiased=True,
        ghost_batch_size=4,
        residual=residual,
        activation="relu",
    )
    assert_close(y, exact)
    assert_close(module.var[...], state.var, size=0)
    assert_close(module.mean[...], state.mean)
