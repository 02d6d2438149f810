"""The part of docs/errors.md on Python: common mistakes in code and their error messages; every row is run.

After a change of messages: JAXBN_WRITE=1 python -m pytest -n 0 tests/jaxbn/test_mistakes.py
"""

import os
import re
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxbn.linen
import jaxbn.nnx

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
WRITE = bool(os.environ.get("JAXBN_WRITE"))
PART = "## In Python"
HEAD = f"""{PART}

Every row is an expression that a test evaluates (`tests/jaxbn/test_mistakes.py`), with `params, state = jaxbn.init(3)`,
`x` of shape (4, 3), a Linen network as `apply_fn` and `variables`, and an NNX `norm`.

| mistake | expression | error message |
| --- | --- | --- |
"""
MISTAKES = [
    ("arguments in the wrong order", "jaxbn.batch_norm(x, state, params, True)"),
    ("arguments in the wrong order", "jaxbn.batch_norm(params, x, state, True)"),
    ("not an array", "jaxbn.batch_norm(params, state, 'x', True)"),
    ("a list instead of an array", "jaxbn.batch_norm(params._replace(scale=[1.0, 1.0, 1.0]), state, x, True)"),
    ("a list instead of an array", "jaxbn.batch_norm(params, state._replace(var=[1.0, 1.0, 1.0]), x, False)"),
    ("a missing count", "jaxbn.batch_norm(params, state._replace(count=None), x, True)"),
    ("one count per channel", "jaxbn.batch_norm(params, state._replace(count=jnp.zeros(3, int)), x, True)"),
    ("the dictionary of a Flax module", "jaxbn.batch_norm({'scale': params.scale}, state, x, True)"),
    ("the dictionary of a Flax module", "jaxbn.fold({'scale': params.scale}, state, kernel, epsilon=1e-5)"),
    (
        "the dictionary of a Flax module",
        "jaxbn.fold(params, {'mean': state.mean, 'var': state.var}, kernel, epsilon=1e-5)",
    ),
    ("an 8-bit type", "jaxbn.batch_norm(params, state, x.astype(jnp.float8_e4m3fn), True)"),
    ("an 8-bit type", "jaxbn.batch_norm(params._replace(bias=params.bias.astype(jnp.float8_e5m2)), state, x, True)"),
    ("an 8-bit type", "jaxbn.batch_norm(params, state, x, True, residual=x.astype(jnp.float8_e4m3fn))"),
    ("an 8-bit type", "jaxbn.fold(params, state, kernel.astype(jnp.float8_e4m3fn), epsilon=1e-5)"),
    ("weights as an argument", "jaxbn.fold_network(lambda kernel, x: x @ kernel.T, kernel, x)"),
    ("not a function", "jaxbn.fold_network(variables, x)"),
    ("an 8-bit type", "jaxbn.init(3, dtype=jnp.float8_e4m3fn)"),
    (
        "a mask with too many dimensions",
        "jaxbn.batch_norm(*jaxbn.init(()), jnp.float32(1), True, axis=(), mask=jnp.ones(3))",
    ),
    ("a mask that is not an array", "jaxbn.batch_norm(params, state, x, True, mask='all')"),
    ("a complex residual for a real x", "jaxbn.batch_norm(params, state, x, True, residual=x.astype('complex64'))"),
    ("an activation without a result", "jaxbn.batch_norm(params, state, x, True, activation=lambda z: None)"),
    ("an activation with two results", "jaxbn.batch_norm(params, state, x, True, activation=lambda z: (z, z))"),
    ("an activation that reduces", "jaxbn.batch_norm(params, state, x, True, activation=jnp.sum)"),
    ("an activation of integers", "jaxbn.batch_norm(params, state, x, True, activation=jnp.argsort)"),
    ("an activation that changes the shape", "jaxbn.batch_norm(params, state, x, False, activation=lambda z: z[:2])"),
    ("a pooling without a result", "jaxbn.batch_norm(params, state, x, True, max_pool=lambda z: None)"),
    ("a pooling with two results", "jaxbn.batch_norm(params, state, x, True, max_pool=lambda z: (z, z))"),
    ("a pooling that reduces everything", "jaxbn.batch_norm(params, state, x, True, max_pool=jnp.max)"),
    ("one batch instead of several", "jaxbn.recalibrate(apply_fn, variables, x)"),
    ("one batch instead of several", "jaxbn.recalibrate(apply_fn, variables, {'image': x})"),
    ("None instead of batches", "jaxbn.recalibrate(apply_fn, variables, None)"),
    ("one batch instead of several", "jaxbn.nnx.recalibrate(norm, x)"),
    ("a model in evaluation mode", "jaxbn.nnx.recalibrate(evaluating, [x])"),
    ("a wrong number of channels", "norm(jnp.ones((4, 5)))"),
    ("a layer instead of its entries", "jaxbn.interop.from_torch(BatchNorm2d())"),
    ("a layer instead of its entries", "jaxbn.interop.from_keras(BatchNormalization())"),
    ("a layer instead of its entries", "jaxbn.interop.from_haiku(BatchNorm(), {}, decay_rate=0.9)"),
    ("a layer instead of its entries", "jaxbn.interop.from_equinox(BatchNorm())"),
    ("a negative variance", "jaxbn.interop.from_torch({'running_mean': zeros, 'running_var': negative})"),
    ("a variance of NaN", "jaxbn.interop.from_torch({'running_mean': zeros, 'running_var': nan})"),
    ("a mean of NaN", "jaxbn.interop.from_torch({'running_mean': nan, 'running_var': zeros})"),
    ("a negative variance", "jaxbn.interop.from_keras([zeros, zeros, zeros, negative])"),
    ("a negative variance", "jaxbn.interop.from_haiku({}, haiku(negative), decay_rate=0.9)"),
    ("a negative variance", "jaxbn.interop.from_equinox(equinox(negative))"),
    ("a negative variance", "jaxbn.interop.to_torch(params, state._replace(var=-state.var))"),
]


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jaxbn.linen.BatchNorm(use_running_average=False)(x)


def namespace() -> dict[str, Any]:
    """The names that the expressions may use."""
    params, state = jaxbn.init(3)
    x = jnp.arange(12.0).reshape(4, 3)
    model, zeros = Network(), np.zeros(3, np.float32)
    norm, evaluating = (jaxbn.nnx.BatchNorm(3, rngs=nnx.Rngs(0)) for _ in range(2))
    evaluating.eval()
    layers = {name: type(name, (), {}) for name in ("BatchNorm2d", "BatchNormalization", "BatchNorm")}

    def average(vector):
        return {"average": vector[None], "hidden": vector[None], "counter": np.int32(1)}

    return layers | {
        "jaxbn": jaxbn, "jnp": jnp, "params": params, "state": state, "x": x, "kernel": jnp.ones((2, 3)),
        "apply_fn": lambda variables, batch: model.apply(variables, batch, mutable=["batch_stats"]),
        "variables": {"params": {}, "batch_stats": {"norm": {"mean": state.mean, "var": state.var}}},
        "norm": norm, "evaluating": evaluating, "zeros": zeros, "nan": zeros * np.nan,
        "negative": np.asarray([1, -1, -2], np.float32),
        "haiku": lambda var: {"batch_norm/~/mean_ema": average(zeros), "batch_norm/~/var_ema": average(var)},
        "equinox": lambda var: {"ema_first_time_index": np.array(False), "ema_state_index": (zeros, var)},
    }  # fmt: skip


def said(expression: str) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(expression, namespace())
    return f"{caught.type.__name__}: {caught.value}"


def described() -> list[tuple[str, str, str]]:
    """The rows of the page's part on Python."""
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| (.+) \|$", PAGE.read_text(encoding="utf-8").partition(PART)[2], re.M)
    return [(fault, expression, message) for fault, expression, message in rows]


@pytest.mark.parametrize(("fault", "expression"), MISTAKES, ids=[expression for _, expression in MISTAKES])
def test_the_message(fault, expression):
    message = said(expression)
    assert "\n" not in message
    if not WRITE:
        assert (fault, expression, message) in described()


def test_the_page_has_these_rows_and_no_others():
    if WRITE:
        rows = [f"| {fault} | `{expression}` | {said(expression)} |" for fault, expression in MISTAKES]
        others = PAGE.read_text(encoding="utf-8").partition(PART)[0].rstrip()
        PAGE.write_text(f"{others}\n\n{HEAD}" + "\n".join(rows) + "\n", encoding="utf-8")
    assert [row[:2] for row in described()] == MISTAKES
