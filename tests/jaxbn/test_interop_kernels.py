"""Kernels of PyTorch's layers in Flax's layout: the layers' results, by definition and beside PyTorch."""

from itertools import product
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

from jaxbn import interop

LAYOUTS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NHWDC", "HWDIO", "NHWDC")}
INPUTS, OUTPUTS, STRIDE, PADDING = 4, 6, 2, 1


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_definition(x: np.ndarray, weight: np.ndarray, groups: int, transposed: bool) -> np.ndarray:
    """PyTorch's convolutions without padding and with stride 1, as explicit sums; x is (N, I, k…)."""
    spatial, kernel = x.shape[2:], weight.shape[2:]
    inputs = x.shape[1] // groups
    outputs = weight.shape[1] if transposed else weight.shape[0] // groups
    sign = 1 if transposed else -1
    sizes = [s + sign * (k - 1) for s, k in zip(spatial, kernel, strict=True)]
    y = np.zeros((x.shape[0], outputs * groups, *sizes))
    for group, i, o in product(range(groups), range(inputs), range(outputs)):
        channel, result = group * inputs + i, group * outputs + o
        taps = weight[channel, o] if transposed else weight[result, i]
        for place in product(*map(range, kernel)):
            if transposed:  # each input is spread over the outputs
                where = tuple(slice(p, p + s) for p, s in zip(place, spatial, strict=True))
                y[(slice(None), result, *where)] += taps[place] * x[:, channel]
            else:
                where = tuple(slice(p, p + s) for p, s in zip(place, sizes, strict=True))
                y[:, result] += taps[place] * x[(slice(None), channel, *where)]
    return y


@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
@pytest.mark.parametrize(("dimensions", "groups"), [(1, 1), (2, 1), (2, 2), (1, INPUTS)])
def test_convolutions_by_definition(dimensions, groups, transposed):
    kernel = (3, 2)[:dimensions]
    shape = (INPUTS, 2) if transposed else (2 * groups, INPUTS // groups)
    weight, x = random(*shape, *kernel), random(2, INPUTS, *(5, 6)[:dimensions], seed=1)
    converted = interop.kernel_from_torch(weight, transposed=transposed, groups=groups)
    padding = [(k - 1, k - 1) if transposed else (0, 0) for k in kernel]
    y = jax.lax.conv_general_dilated(
        jnp.asarray(np.moveaxis(x, 1, -1)),
        converted,
        (1,) * dimensions,
        padding,
        dimension_numbers=LAYOUTS[dimensions],
        feature_group_count=groups,
    )
    expected = by_definition(x, weight, groups, transposed)
    assert_close(np.moveaxis(np.asarray(y), -1, 1), expected, condition=4, size=np.abs(expected).max())
    np.testing.assert_array_equal(interop.kernel_to_torch(converted, transposed=transposed, groups=groups), weight)


def test_dense():
    weight, x = random(3, 5), random(2, 5, seed=1)
    kernel = interop.kernel_from_torch(weight)
    y = nn.Dense(3, use_bias=False).apply({"params": {"kernel": kernel}}, x)
    assert_close(y, x @ weight.T, condition=4, size=5)
    np.testing.assert_array_equal(interop.kernel_to_torch(kernel), weight)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
def test_beside_pytorch(dimensions, transposed):
    """Flax's modules with strides and padding."""
    torch = pytest.importorskip("torch")
    kind = f"Conv{'Transpose' if transposed else ''}{dimensions}d"
    extra: dict[str, Any] = {"output_padding": 1} if transposed else {"groups": 2}
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(INPUTS, OUTPUTS, 3, STRIDE, PADDING, **extra)
    x = random(2, INPUTS, *(7, 6, 5)[:dimensions])
    with torch.no_grad():
        expected = layer(torch.from_numpy(x)).numpy()
    kernel = interop.kernel_from_torch(layer.weight.detach(), transposed=transposed, groups=extra.get("groups", 1))
    variables = {"params": {"kernel": kernel, "bias": layer.bias.detach().numpy()}}
    sizes, strides = (3,) * dimensions, (STRIDE,) * dimensions
    if transposed:
        padding = [(3 - 1 - PADDING, 3 - 1 - PADDING + 1)] * dimensions
        module: nn.Module = nn.ConvTranspose(OUTPUTS, sizes, strides, padding)
    else:
        module = nn.Conv(OUTPUTS, sizes, strides, [(PADDING, PADDING)] * dimensions, feature_group_count=2)
    y = np.moveaxis(np.asarray(module.apply(variables, np.moveaxis(x, 1, -1))), -1, 1)
    assert_close(y, expected, condition=4, size=np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_types_are_kept(dtype):
    weight = random(4, 3, 2).astype(dtype)
    assert interop.kernel_from_torch(weight).dtype == weight.dtype == interop.kernel_to_torch(weight).dtype


@pytest.mark.parametrize(
    ("given", "options", "error", "words"),
    [
        (np.ones(3), {}, ValueError, "2 dimensions"),
        (np.ones((2, 2), int), {}, TypeError, "must be floating"),
        ([[1.0]], {}, TypeError, "must be an array"),
        (np.ones((4, 3, 2)), {"groups": 3}, ValueError, "groups must be a positive integer that divides"),
        (np.ones((4, 3, 2)), {"groups": True}, ValueError, "groups must be"),
    ],
)
def test_errors(given, options, error, words):
    with pytest.raises(error, match=words):
        interop.kernel_from_torch(given, **options)
