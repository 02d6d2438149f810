"""Diagnostics of the norms of a network on a batch."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxbn
import jaxbn.linen
from train.network.models import CNN, MLP
from train.training.step import TrainState, prepare


def diagnose(model: CNN | MLP, state: TrainState, inputs: jax.Array) -> dict[str, jaxbn.Diagnostics]:
    """Return `jaxbn.diagnostics` of every norm on the inputs it receives when the network evaluates a batch."""
    return jax.jit(lambda variables, x: _diagnose(model, variables, x))(state.variables, prepare(inputs))


def _diagnose(model: CNN | MLP, variables: dict[str, Any], x: jax.Array) -> dict[str, jaxbn.Diagnostics]:
    reports: dict[str, jaxbn.Diagnostics] = {}

    def look(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:  # noqa: ANN401
        norm = context.module
        if isinstance(norm, jaxbn.linen.BatchNorm) and context.method_name == "__call__":
            learned, tracked = norm.variables["params"], norm.variables["batch_stats"]
            params = jaxbn.BatchNormParams(learned.get("scale"), learned.get("bias"))
            state = jaxbn.BatchNormState(tracked["mean"], tracked["var"], jnp.zeros((), jnp.int32))
            reports["/".join(norm.path)] = jaxbn.diagnostics(params, state, args[0], epsilon=norm.epsilon)
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        model.apply(variables, x, train=False)
    return reports


def rows(reports: Mapping[str, jaxbn.Diagnostics]) -> list[dict[str, str]]:
    """One row per norm, by column, each with the value of the norm's worst channel.

    Example:
        >>> import jax.numpy as jnp
        >>> report = jaxbn.diagnostics(*jaxbn.init(2), jnp.array([[1.0, 7.0], [5.0, 7.0]]))
        >>> list(rows({"norm1": report})[0].values())
        ['norm1', '2', '7.00 σ', '0.00 to 4.00', '1', '2']

    """
    found = []
    for name, report in reports.items():
        gap, ratio, dead, size = (
            np.asarray(a).ravel() for a in (report.mean_gap, report.variance_ratio, report.dead, report.effective_size)
        )
        found.append(
            {
                "norm": name,
                "channels": f"{gap.size:,}",
                "largest gap of means": f"{np.abs(gap).max():.2f} σ",
                "variance / running": f"{ratio.min():.2f} to {ratio.max():.2f}",
                "dead": f"{dead.sum():,}",
                "effective size": f"{size.min():,.0f}",
            }
        )
    return found
