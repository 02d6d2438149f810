"""Ensembles by `vmap`, one batch spread over a vmapped axis, and `scan` over layers: the function, Linen and NNX.

    python examples/ensembles_and_layers.py

In an ensemble each member has its own statistics, so they are mapped like the parameters. If the rows of one batch
lie along a mapped axis, `axis_name=` shares the statistics over it. The program also makes the common mistakes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxbn
import jaxbn.linen
import jaxbn.nnx

MEMBERS, ROWS, FEATURES = 3, 16, 4
MAPPED: dict[str, Any] = {"variable_axes": {"params": 0, "batch_stats": 0}, "split_rngs": {"params": True}}
SHARED: dict[str, Any] = {"variable_axes": {"params": None, "batch_stats": None}, "split_rngs": {"params": False}}
scan, vmap = cast(Any, nn.scan), partial(cast(Any, nn.vmap), in_axes=(0, None))


class LinenLayer(nn.Module):
    """A dense layer with its norm; it returns a pair, as `nn.scan` requires."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, None]:
        """The output, and nothing to collect."""
        return jaxbn.linen.BatchNorm(not train, axis_name=self.axis_name)(nn.Dense(FEATURES)(x)), None


class NNXLayer(nnx.Module):
    """The same layer."""

    def __init__(self, rngs: nnx.Rngs, axis_name: str | None = None) -> None:
        self.dense = nnx.Linear(FEATURES, FEATURES, rngs=rngs)
        self.norm = jaxbn.nnx.BatchNorm(FEATURES, axis_name=axis_name, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The output."""
        return self.norm(self.dense(x))


def functions(x: jax.Array, members: jax.Array) -> None:
    """The pure function: different states are stacked; a shared state comes back unmapped."""
    params, state = jaxbn.init(FEATURES)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * MEMBERS), (params, state))
    _, states = jax.vmap(lambda member, x: jaxbn.batch_norm(member[0], member[1], x, True))(stacked, members)
    assert states.mean.shape == (MEMBERS, FEATURES)

    def train(x: jax.Array, axis_name: str | None = None) -> Any:  # noqa: ANN401
        return jaxbn.batch_norm(params, state, x, True, axis_name=axis_name)

    rows = jax.vmap(partial(train, axis_name="rows"), axis_name="rows", out_axes=(0, None))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), rows(x), train(x))
    jax.lax.scan(lambda x, layer: jaxbn.batch_norm(layer[0], layer[1], x, True), x, stacked)  # new states are stacked
    fails("function, a batch along the mapped axis, no axis_name", lambda: jax.vmap(train)(x))
    fails("function, axis_name that no one binds", lambda: train(x, "rows"))


def linen(x: jax.Array, members: jax.Array) -> None:
    """Linen: `batch_stats` is mapped like `params`."""

    def train(model: nn.Module, x: jax.Array) -> Any:  # noqa: ANN401
        """The shape of the running means after a step."""
        variables: Any = model.init(jax.random.key(0), x, True)
        updates: Any = model.apply(variables, x, True, mutable=["batch_stats"])[1]
        return updates["batch_stats"]["BatchNorm_0"]["mean"].shape

    assert train(vmap(LinenLayer, **MAPPED)(), members) == (MEMBERS, FEATURES)
    assert train(vmap(LinenLayer, axis_name="rows", **SHARED)("rows"), members) == (FEATURES,)
    assert train(scan(LinenLayer, length=MEMBERS, in_axes=nn.broadcast, **MAPPED)(), x) == (MEMBERS, FEATURES)
    unshared = vmap(LinenLayer, axis_name="rows", **SHARED)()
    fails("Linen, shared statistics without axis_name", lambda: train(unshared, members))
    incomplete = vmap(LinenLayer, **MAPPED | {"variable_axes": {"params": 0}})()
    fails("Linen, batch_stats missing from variable_axes", lambda: train(incomplete, members))


def modules(x: jax.Array, members: jax.Array) -> None:
    """NNX: all variables of a mapped model are mapped; a shared model is passed with None, never closed over."""
    ensemble = nnx.split_rngs(splits=MEMBERS)(nnx.vmap(NNXLayer))(nnx.Rngs(0))
    nnx.vmap(lambda model, x: model(x))(ensemble, members)
    assert ensemble.norm.mean[...].shape == (MEMBERS, FEATURES)

    def rows(axis_name: str | None) -> jax.Array:
        call = nnx.vmap(lambda model, x: model(x), in_axes=(None, 0), axis_name="rows")
        return call(NNXLayer(nnx.Rngs(0), axis_name), members)

    rows("rows")
    nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, ensemble)
    fails("NNX, shared statistics without axis_name", lambda: rows(None))
    fails("NNX, a model that is closed over", lambda: jax.vmap(NNXLayer(nnx.Rngs(0)))(members))


def fails(mistake: str, call: Callable[[], Any]) -> None:
    """Print the beginning of a mistake's error message."""
    try:
        call()
    except Exception as error:
        return print(f"{mistake}:\n    {type(error).__name__}: {str(error).splitlines()[0][:90]}")
    raise AssertionError(f"no error: {mistake}")


def main() -> None:
    """Run all three."""
    members = 2 + jax.random.normal(jax.random.key(1), (MEMBERS, ROWS, FEATURES))
    for run in (functions, linen, modules):
        run(members[0], members)


if __name__ == "__main__":
    main()
