"""Programs with symbolic sizes and for other runtimes; `test_contract.py` exports every variant of the function."""

import importlib.util
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from closeness import assert_close
from flax import nnx
from jax import export

import jaxbn.linen
import jaxbn.nnx

PARAMS = jaxbn.BatchNormParams(jnp.asarray([1.5, -0.5, 1.0]), jnp.asarray([0.1, 0.3, -1.0]))
STATE = jaxbn.BatchNormState(jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([0.5, 2.0, 3.0]), jnp.asarray(4))
POOL = partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
KEY = jax.random.key(0)

needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jax2onnx", "onnxruntime"))),
    reason="jax2onnx and onnxruntime are not installed: pip install 'jaxbn[onnx]'",
)


@pytest.fixture(autouse=True)
def strict():
    """Flax and jax2onnx promote types implicitly."""


def images(*shape: int, mean: float = 5.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(mean, 2, (*shape, 3)), jnp.float32)


def exported(function: Any, sizes: str) -> Any:
    """A function of one float32 array with these sizes, exported and loaded."""
    return export.export(jax.jit(function))(jax.ShapeDtypeStruct(export.symbolic_shape(sizes), jnp.float32)).call


def test_images_of_any_size_are_pooled():
    def run(x):
        return jaxbn.batch_norm(PARAMS, STATE, x, True, activation="relu", max_pool=POOL)

    program = exported(run, "b, 2*h, 2*w, 3")
    for shape in ((4, 6, 8), (1, 2, 2)):
        assert_close(program(images(*shape)), run(images(*shape)))


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_as_accurate_as_where_sizes_are_known(mean):
    x = images(64, 7, mean=mean).at[3, 2].set(1e4)
    program = exported(lambda x: jaxbn.batch_norm(PARAMS, STATE, x, True, momentum=0.0), "b, w, 3")
    assert_close(program(x), oracle.batch_norm(PARAMS, STATE, x, True, momentum=0.0))


@pytest.mark.parametrize("unbiased", [False, True])
def test_one_value_per_channel_is_only_known_at_run_time(unbiased):
    """The output is the bias; an unbiased variance of one value does not exist and is not kept."""
    program = exported(lambda x: jaxbn.batch_norm(PARAMS, STATE, x, True, momentum=0.0, unbiased=unbiased), "b, 3")
    y, state = program(images(1))
    assert_close(y[0], PARAMS.bias)
    assert_close(state.mean, images(1)[0])
    np.testing.assert_array_equal(state.var, STATE.var if unbiased else jnp.zeros(3))


def test_diagnostics_of_any_batch():
    *program, dead, size = exported(lambda x: jaxbn.diagnostics(PARAMS, STATE, x), "b, w, 3")(images(4, 8))
    *expected, dead_expected, size_expected = jaxbn.diagnostics(PARAMS, STATE, images(4, 8))
    assert_close((program, size), (expected, size_expected))
    np.testing.assert_array_equal(dead, dead_expected)


def test_ghost_batches_of_a_symbolic_batch_must_be_known_to_divide_it():
    with pytest.raises(ValueError, match=r"ghost_batch_size must divide .* got 4 for b rows.*such as 4\*b"):
        exported(lambda x: jaxbn.batch_norm(PARAMS, STATE, x, True, ghost_batch_size=4), "b, 3")


def linen_training():
    norm = jaxbn.linen.BatchNorm(use_running_average=False)
    variables = norm.init(KEY, images(2, 4, 4))
    return lambda x: norm.apply(variables, x, mutable=["batch_stats"])


def linen_evaluation():
    norm = jaxbn.linen.BatchNorm(use_running_average=True)
    variables = norm.init(KEY, images(2, 4, 4))
    variables = {**variables, "batch_stats": {"mean": STATE.mean, "var": STATE.var}}
    return lambda x: norm.apply(variables, x)


def nnx_evaluation():
    norm = jaxbn.nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    norm.mean[...], norm.var[...] = STATE.mean, STATE.var
    norm.eval()
    return partial(type(norm).__call__, norm)


def nnx_training():
    graph, state = nnx.split(jaxbn.nnx.BatchNorm(3, rngs=nnx.Rngs(0)))

    def run(x):
        norm = nnx.merge(graph, state, copy=True)
        return norm(x), norm.mean[...], norm.var[...]

    return run


@pytest.mark.parametrize("make", [linen_training, linen_evaluation, nnx_training, nnx_evaluation])
def test_modules(make):
    run, x = make(), images(4, 5, 6)
    assert_close(exported(run, "b, h, w, 3")(x), run(x), condition=2)


def folded(x):
    kernel = jnp.linspace(-1, 1, 3 * 3 * 3 * 3).reshape(3, 3, 3, 3)
    kernel, bias = jaxbn.fold(PARAMS, STATE, kernel, epsilon=1e-5)
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias


ONNX: dict[str, Any] = {
    "evaluation": lambda x: jaxbn.batch_norm(PARAMS, STATE, x, False)[0],
    "relu and pooling": lambda x: jaxbn.batch_norm(PARAMS, STATE, x, False, activation="relu", max_pool=POOL)[0],
    "folded": folded,
}
MODULES: dict[str, Any] = {"Linen": linen_evaluation, "NNX": nnx_evaluation}


@needs_onnx
@pytest.mark.filterwarnings("ignore")  # of jax2onnx
@pytest.mark.parametrize("name", [*ONNX, *MODULES])
def test_onnx(name):
    """A program for any batch, run by onnxruntime."""
    import onnxruntime
    from jax2onnx import to_onnx

    run, x = ONNX[name] if name in ONNX else MODULES[name](), images(5, 4, 4)
    model = to_onnx(run, [("B", 4, 4, 3)], model_name="norm")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: np.asarray(x)})
    assert_close(y, run(x), condition=5)


@needs_onnx
@pytest.mark.filterwarnings("ignore")  # of jax2onnx
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_converted_to_onnx(dtype):
    """Converted, not run: onnxruntime lacks bfloat16 on CPUs. The program has no test for finite numbers."""
    from jax2onnx import to_onnx

    x = jax.ShapeDtypeStruct((2, 4, 4, 3), dtype)
    model = to_onnx(lambda x: jaxbn.batch_norm(PARAMS, STATE, x, False)[0], [x], model_name="norm")
    assert not {"IsInf", "IsNaN"} & {node.op_type for node in model.graph.node}


@needs_onnx
@pytest.mark.filterwarnings("ignore")  # of jax2onnx
@pytest.mark.parametrize(("state", "train"), [(STATE, True), (None, False)])
def test_statistics_of_a_batch_cannot_be_converted_to_onnx(state, train):
    """As docs/semantics.md says: jax2onnx has no rule for `jax.lax.platform_dependent`."""
    from jax2onnx import to_onnx

    with pytest.raises(NotImplementedError, match="platform_index"):
        to_onnx(lambda x: jaxbn.batch_norm(PARAMS, state, x, train)[0], [("B", 4, 4, 3)], model_name="norm")
