"""Whole networks whose norms are folded compute the same, with fewer operations."""

from functools import partial
from typing import Any, cast

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


def evaluating(norm: Any) -> Any:
    return partial(norm, use_running_average=True)


def operations(function: Any, *arguments: Any) -> dict[str, int]:
    """The number of multiplications, subtractions and so on in the program."""
    text = jax.jit(function).lower(*arguments).as_text()
    names = ("multiply", "subtract", "rsqrt", "sqrt", "add", "dot_general")
    counts = {name: text.count(f"stablehlo.{name} ") for name in names}
    return counts | {"convolution": text.count("stablehlo.convolution(")}


def assert_same(actual: Any, expected: Any) -> None:
    """Assert equality within 1e-5 of the largest result."""
    assert_close(actual, expected, condition=5, size=float(jnp.abs(expected).max()))


def check(function: Any, *arguments: Any) -> tuple[Any, jaxbn.FoldReport]:
    """Fold the network and compare the results."""
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
    function = networks.of_linen(networks.LinenResNet50(evaluating(LINEN[whose])), x)
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
    x, model = images(2, 32, 32, 3), networks.of_nnx(partial(networks.NNXResNet50, NNX[whose]))
    folded, report = check(model, x)
    assert (len(report.folded), len(report.kept)) == (53, 0)
    assert report.folded[1].name == "norm 2"
    assert_no_norms(folded, x)


@NORMS
def test_a_densenet(whose):
    """Each norm shares its input with others; only norms directly behind a convolution fold."""
    x = images(2, 16, 16, 3)
    folded, report = check(networks.of_linen(networks.DenseNet(evaluating(LINEN[whose])), x), x)
    assert (len(report.folded), len(report.kept)) == (1 + 4, 1 + 4 + 1)
    reasons = {norm.detail for norm in report.kept}
    assert reasons == {"in front of it: others read what it normalises; behind it: relu"}
    assert operations(folded, x)["subtract"] == 6


@NORMS
def test_a_mobilenet(whose):
    x = images(2, 16, 16, 3)
    folded, report = check(networks.of_linen(networks.MobileNet(evaluating(LINEN[whose])), x), x)
    assert (len(report.folded), len(report.kept)) == (11, 0)
    assert_no_norms(folded, x)


SCALE, BIAS = jnp.asarray([1.5, -0.5, 1.0, 2.0]), jnp.asarray([0.1, 0.3, -1.0, 0.0])
PARAMS = jaxbn.BatchNormParams(SCALE, BIAS)
STATE = jaxbn.BatchNormState(
    jnp.asarray([1.0, 0.2, -0.3, 0.0]), jnp.asarray([0.5, 2.0, 3.0, 1.0]), jnp.asarray(4, jnp.int32)
)
NHWC = ("NHWC", "HWIO", "NHWC")


def kernel(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, 0.5, shape), jnp.float32)


def norm(x: jax.Array, **options: Any) -> jax.Array:
    return jaxbn.batch_norm(PARAMS, STATE, x, False, **options)[0]


def conv(x: jax.Array, weights: jax.Array, padding: Any = "VALID", **options: Any) -> jax.Array:
    return lax.conv_general_dilated(x, weights, (1, 1), padding, dimension_numbers=NHWC, **options)


def pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), (2, 2))


def twice(y: jax.Array) -> jax.Array:
    return conv(y, K) + conv(y, OUT)[..., :4]


def with_itself(y: jax.Array) -> jax.Array:
    return norm(y) + 0.5 * y


def beside_itself(y: jax.Array) -> jax.Array:
    return jnp.tanh(norm(y)) + y


def heads(x: jax.Array) -> jax.Array:
    """A network with features on two axes."""
    params, state = jax.tree.map(lambda v: v.reshape(2, 2) if v.ndim else v, (PARAMS, STATE))
    return jaxbn.batch_norm(params, state, jnp.einsum("nhwc,cij->nihwj", x, kernel(2, 2, 2)), False, axis=(1, 4))[0]


K, IN, OUT, DEEP = kernel(3, 3, 4, 4), kernel(3, 3, 2, 4), kernel(3, 3, 4, 6, seed=1), kernel(3, 3, 2, 4, seed=2)
POSITIVE = PARAMS._replace(scale=jnp.abs(SCALE))
FOLDS: dict[str, Any] = {
    "in front": lambda x: norm(conv(x, IN, "SAME"), activation="relu"),
    "in front, with a bias": lambda x: norm(conv(x, IN) + BIAS, activation="silu"),
    "behind": lambda x: conv(norm(jnp.tanh(conv(x, IN))), OUT),
    "behind, with a bias": lambda x: conv(norm(jnp.tanh(conv(x, IN))), K) + SCALE,
    "behind, in groups": lambda x: conv(norm(jnp.tanh(conv(x, IN))), kernel(3, 3, 2, 6), feature_group_count=2),
    "behind, depthwise": lambda x: conv(norm(jnp.tanh(conv(x, IN))), kernel(3, 3, 1, 8), feature_group_count=4),
    "behind, twice": lambda x: twice(norm(jnp.tanh(conv(x, IN)))),
    "behind, flattened": lambda x: norm(jnp.tanh(conv(x, IN))).reshape(x.shape[0], -1) @ kernel(6 * 6 * 4, 3),
    "behind a mean": lambda x: norm(jnp.tanh(conv(x, IN))).mean((1, 2)) @ kernel(4, 3),
    "behind an average pooling": lambda x: conv(nn.avg_pool(norm(jnp.tanh(conv(x, IN))), (2, 2), (2, 2)), K),
    "a residual": lambda x: norm(conv(x, IN), residual=conv(x, DEEP), activation="relu"),
    "a sum of two": lambda x: jnp.tanh(norm(conv(x, IN) + conv(x, DEEP))),
    "a concatenation": lambda x: jnp.tanh(
        norm(jnp.concatenate([conv(x, IN[..., :1]), conv(x, DEEP[..., :3])], axis=-1))
    ),
    "a transposition": lambda x: norm(conv(x, IN).transpose(3, 0, 1, 2), axis=0, activation="relu"),
    "max pooling of the norm": lambda x: norm(conv(x, IN), activation="relu", max_pool=pool),
    "max pooling in front": lambda x: jnp.tanh(jaxbn.batch_norm(POSITIVE, STATE, pool(conv(x, IN)), False)[0]),
    "max pooling behind": lambda x: conv(
        pool(jaxbn.batch_norm(POSITIVE, STATE, jnp.tanh(conv(x, IN)), False)[0]), K[:2]
    ),
    "a residual of the norm": lambda x: jnp.tanh(with_itself(conv(x, IN))),
    "transposed": lambda x: norm(lax.conv_transpose(x, IN, (2, 2), "SAME", dimension_numbers=NHWC), activation="relu"),
    "dense": lambda x: norm(x @ kernel(2, 4), activation="gelu"),
    "heads": lambda x: jax.nn.relu(heads(x)),
    "experts": lambda x: jax.nn.relu(norm(jnp.einsum("nhwe,eic->nehwc", x, kernel(2, 1, 4)))),
    "written otherwise": lambda x: jnp.tanh((conv(x, IN) - STATE.mean) / jnp.sqrt(STATE.var + 1e-5) * SCALE + BIAS),
    "as scale and shift": lambda x: jnp.tanh(conv(x, IN) * SCALE + (BIAS - STATE.mean * SCALE)),
}


@pytest.mark.parametrize("name", FOLDS)
def test_a_norm_that_folds(name):
    folded, report = check(FOLDS[name], images(2, 8, 8, 2))
    assert (len(report.folded), len(report.kept)) == (1, 0), report
    before, after = (operations(f, images(2, 8, 8, 2)) for f in (FOLDS[name], folded))
    assert after["multiply"] < before["multiply"]
    assert after["subtract"] <= max(0, before["subtract"] - 1)


@pytest.mark.parametrize(
    ("function", "in_front", "behind"),
    [
        (lambda x: norm(jnp.tanh(conv(x, IN)), activation="relu"), "tanh", "relu"),
        (lambda x: conv(norm(jnp.tanh(conv(x, IN))), K, "SAME"), "tanh", "a convolution is padded"),
        (lambda x: norm(jnp.tanh(conv(x, IN))), "tanh", "the result of the network"),
        (lambda x: beside_itself(conv(x, IN)), "others read what it normalises", "tanh"),
        (
            lambda x: conv(norm(x[..., [0, 1, 0, 1]]), K, ((0, 1), (0, 0))),
            "a selection of entries mixes channels",
            "a convolution is padded",
        ),
        (
            lambda x: jnp.tanh(norm(pool(conv(x, IN)))),
            "a max pooling, and the multiplier is negative somewhere",
            "tanh",
        ),
        (
            lambda x: jnp.tanh(norm(jnp.einsum("nhwc,nhwd->nhcd", x, jnp.concatenate([x, x], -1)))),
            "a dense kernel (nhwc,nhwd->nhcd), whose kernel depends on the inputs",
            "tanh",
        ),
        (
            lambda x: conv(norm(jnp.tanh(conv(x, IN))), K, ((0, 0), (0, 0)), lhs_dilation=(2, 2)),
            "tanh",
            "a convolution is transposed",
        ),
    ],
)
def test_a_norm_that_stays(function, in_front, behind):
    """The norm stays as it was traced, and subtracts μ first."""
    x = images(2, 8, 8, 2)
    folded, report = jaxbn.fold_network(function, x)
    assert report.folded == ()
    (kept,) = report.kept
    assert kept.detail == f"in front of it: {in_front}; behind it: {behind}"
    assert operations(folded, x)["subtract"] == operations(folded, x)["multiply"] == 1
    assert_same(jax.jit(folded)(x), jax.jit(function)(x))


def test_what_is_not_next_to_a_norm_is_left_alone():
    """Scalars, scales without a shift, dead operations, activations with their derivatives."""

    def function(x):
        norm(x @ kernel(2, 4))
        y = jax.nn.relu(conv(x / 255, IN) * SCALE + 0.5) * 2
        return jnp.mean(y, (1, 2)) @ kernel(4, 3), x.astype(jnp.int32) * 2

    x = images(2, 8, 8, 2)
    folded, report = jaxbn.fold_network(function, x)
    assert report == ((), ())
    assert operations(folded, x) == operations(function, x)
    for actual, expected in zip(jax.jit(folded)(x), jax.jit(function)(x), strict=True):
        np.testing.assert_array_equal(actual, expected)
    gradients = [jax.grad(lambda x, f=f: f(x)[0].sum())(jnp.zeros_like(x)) for f in (folded, function)]
    np.testing.assert_array_equal(*gradients)


@NORMS
def test_scanned_layers(whose):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            y = evaluating(LINEN[whose])()(nn.Conv(4, (3, 3), use_bias=False)(x))
            return nn.relu(x + y), None

    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes: Any = {"params": 0, "batch_stats": 0}
            layers = nn.scan(nn.remat(Layer), variable_axes=axes, split_rngs={"params": True}, length=3)
            return nn.Dense(3)(layers()(nn.Conv(4, (1, 1))(x), None)[0].mean((1, 2)))

    x = images(2, 8, 8, 2)
    folded, report = check(networks.of_linen(Scanned(), x), x)
    (only,) = report.folded
    assert only.name.endswith("/BatchNorm_0 of each of 3 scanned layers")
    assert_no_norms(folded, x)
    assert (3, 3, 3, 4, 4) in {weight.shape for weight in folded.args[0]}


def test_scanned_layers_that_fold_differently():
    """Only a positive multiplier passes a max pooling."""
    scales = jnp.stack([jnp.abs(SCALE), SCALE])

    def function(x):
        def layer(x, scale):
            y = jaxbn.batch_norm(PARAMS._replace(scale=scale), STATE, jnp.maximum(conv(x, K, "SAME"), x), False)[0]
            return jnp.tanh(nn.max_pool(y, (1, 1))), None

        return lax.scan(layer, x, scales)[0]

    _, report = check(function, images(2, 4, 4, 4))
    assert report.folded == ()


def test_branches():
    def function(x, which):
        branches = [lambda x: norm(conv(x, K, "SAME"), activation="relu"), jnp.tanh]
        return lax.switch(which, branches, x)

    x = images(2, 8, 8, 4)
    folded, report = jaxbn.fold_network(function, x, 0)
    assert len(report.folded) == 1
    for which in (0, 1):
        assert_same(folded(x, which), function(x, which))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    """Types stay, and kernels are multiplied in a wider type and rounded once."""
    x = images(2, 8, 8, 2)

    def function(x):
        y = norm(conv(x.astype(dtype), IN.astype(dtype)), activation="relu")
        return conv(y, K.astype(dtype)).astype(jnp.float32), y

    folded, report = jaxbn.fold_network(function, x)
    assert len(report.folded) == 1
    for actual, expected in zip(jax.jit(folded)(x), jax.jit(function)(x), strict=True):
        assert actual.dtype == expected.dtype
        assert_close(actual, expected, condition=8, size=float(jnp.abs(expected).max()) * 2**9, dtype=dtype)
    multiplier = SCALE / jnp.sqrt(STATE.var + 1e-5)
    wide = np.asarray(IN.astype(dtype), np.float64) * np.asarray(multiplier, np.float64)
    np.testing.assert_array_equal(folded.args[0][0], wide.astype(dtype))


def test_a_kernel_that_would_overflow():
    large = IN.astype(jnp.float16) * 1e4
    _, report = jaxbn.fold_network(
        lambda x: norm(conv(x, large) * 1e4, activation="relu"), images(2, 8, 8, 2).astype("f2")
    )
    assert "too large for float16" in report.kept[0].detail


def test_a_variance_that_is_no_number():
    bad = STATE._replace(var=STATE.var.at[1].set(jnp.nan))
    _, report = jaxbn.fold_network(
        lambda x: jnp.tanh(jaxbn.batch_norm(PARAMS, bad, conv(x, IN), False)[0]), images(2, 8, 8, 2)
    )
    assert (
        report.kept[0].detail == "in front of it: numbers that are not finite; behind it: numbers that are not finite"
    )


def test_double_precision(x64):
    weights, (params, state) = (
        jnp.asarray(IN, jnp.float64),
        jax.tree.map(lambda v: v.astype(jnp.float64) if v.ndim else v, (PARAMS, STATE)),
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 2)))
    function = lambda x: jaxbn.batch_norm(params, state, conv(x, weights), False)[0]  # noqa: E731
    folded, _ = jaxbn.fold_network(function, x)
    assert_close(folded(x), function(x), condition=5)


def test_any_batch():
    """One fold, for concrete and symbolic batches; shapes are enough to fold."""
    function = FOLDS["behind, flattened"]
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b, 8, 8, 2"), jnp.float32)
    folded, report = jaxbn.fold_network(function, shape)
    assert len(report.folded) == 1
    program = export.export(jax.jit(folded))(shape)
    for batch in (1, 5):
        x = images(batch, 8, 8, 2)
        assert_same(program.call(x), function(x))
        assert_same(folded(x), function(x))


def test_the_same_weights_for_any_batch():
    """The weights are the leaves, so one compiled program serves all networks of the same form."""
    folded, _ = jaxbn.fold_network(FOLDS["in front"], images(2, 8, 8, 2))
    doubled = jax.tree.map(lambda weight: 2 * weight, folded)
    run = jax.jit(lambda folded, x: folded(x))
    for batch in (2, 3):
        x = images(batch, 8, 8, 2)
        assert_same(run(doubled, x), 2 * FOLDS["in front"](x))
    assert 'stablehlo.constant dense<"' not in run.lower(folded, x).as_text()


def test_differentiation_and_vmap():
    function, x = FOLDS["in front"], images(3, 2, 8, 8, 2)
    folded, _ = jaxbn.fold_network(function, x[0])
    assert_same(jax.vmap(folded)(x), jax.vmap(function)(x))
    assert_same(*(jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x[0]) for f in (folded, function)))


def test_trees():
    """Pytrees as arguments and as results."""
    folded, _ = jaxbn.fold_network(
        lambda a, b: {"y": FOLDS["dense"](a["x"]), "b": b, "c": PARAMS}, {"x": images(3, 2)}, 1.0
    )
    result = folded({"x": images(3, 2)}, 2.0)
    assert_same(result["y"], FOLDS["dense"](images(3, 2)))
    assert result["b"] == 2
    np.testing.assert_array_equal(result["c"].scale, SCALE)


@pytest.mark.parametrize("options", [{}, {"norm_input": True, "norm_hidden": True}])
def test_the_cnn(options):
    x = images(2, 28, 28, 1)
    folded, report = check(networks.of_linen(CNN(10, **options), x, train=False), x)
    assert (len(report.folded), len(report.kept)) == (4 if options else 2, 0)
    assert_no_norms(folded, x)


def test_a_network_of_haiku():
    haiku = pytest.importorskip("haiku")

    def network(x, train=False):
        norm = partial(haiku.BatchNorm, True, True, 0.9)
        x = jax.nn.relu(norm()(haiku.Conv2D(4, 3, with_bias=False)(x), is_training=train))
        return haiku.Linear(3)(jax.nn.relu(norm()(haiku.Conv2D(4, 3)(x), is_training=train)).mean((1, 2)))

    x, transformed = images(2, 8, 8, 3), haiku.without_apply_rng(haiku.transform_with_state(network))
    variables = networks.drawn(jax.eval_shape(lambda: transformed.init(jax.random.key(0), x, train=True)))
    _, report = check(lambda x: transformed.apply(*variables, x)[0], x)
    assert [norm.name for norm in report.folded] == ["batch_norm", "batch_norm_1"]


def test_a_network_of_equinox():
    equinox = pytest.importorskip("equinox")
    conv = equinox.nn.Conv2d(3, 4, 3, key=jax.random.key(0))
    norm, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(4, "batch", mode="batch")
    norm = equinox.nn.inference_mode(norm)
    function = jax.vmap(lambda x: jax.nn.relu(norm(conv(x), state)[0]), axis_name="batch")
    _, report = check(function, images(2, 3, 8, 8))
    assert len(report.folded) == 1


def test_errors():
    x, no_function = images(2, 2), cast(Any, images(2, 2))
    with pytest.raises(
        TypeError, match=r"function must be a network that can be called .* got float32 of shape \(2, 2\)"
    ):
        jaxbn.fold_network(no_function, x)
    with pytest.raises(ValueError, match="function must hold its weights, and holds none"):
        jaxbn.fold_network(lambda kernel, x: jnp.tanh(x @ kernel), x, x)
    with pytest.raises(TypeError, match=r"got a traced array\. Call fold_network outside"):
        jax.jit(lambda kernel: jaxbn.fold_network(lambda x: x @ kernel, x)[0](x))(x)
