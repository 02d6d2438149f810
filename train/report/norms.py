"""How healthy the norms of a network are, on a batch."""

from typing import Any

import flax.linen as nn
import jax

import jaxbn
import jaxbn.linen
from train.network.models import CNN, MLP
from train.training.step import TrainState, prepare


def diagnose(model: CNN | MLP, state: TrainState, inputs: jax.Array) -> dict[str, jaxbn.Diagnostics]:
    """`jaxbn.diagnostics` of every norm, on what it receives when the network evaluates a batch of the dataset."""
    return jax.jit(lambda variables, x: _diagnose(model, variables, x))(state.variables, prepare(inputs))


def _diagnose(model: CNN | MLP, variables: dict[str, Any], x: jax.Array) -> dict[str, jaxbn.Diagnostics]:
    reports: dict[str, jaxbn.Diagnostics] = {}

    def look(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:  # noqa: ANN401
        norm = context.module
        if isinstance(norm, jaxbn.linen.BatchNorm) and context.method_name == "__call__":
            params, stats = norm.variables["params"], norm.variables["batch_stats"]
            reports["/".join(norm.path)] = jaxbn.diagnostics(
                jaxbn.BatchNormParams(params.get("scale"), params.get("bias")),
                jaxbn.BatchNormState(stats["mean"], stats["var"], jax.numpy.zeros((), jax.numpy.int32)),
                args[0],
                epsilon=norm.epsilon,
            )
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        model.apply(variables, x, train=False)
    return reports
