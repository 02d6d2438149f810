"""Fine-tuning a whole model with frozen norms: their statistics, their scale and bias, or both; Linen and NNX.

    python examples/fine_tuning.py

A norm has two parts that can be frozen. Its statistics: the norm normalises with the running ones while the rest
trains, so that small or foreign batches neither change them nor are normalised by their own. Its scale and bias: the
optimizer does not update them. Both are set for the whole model at once, without naming a layer.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxbn
import jaxbn.linen
import jaxbn.nnx

CHOICES = [(statistics, affine) for statistics in (False, True) for affine in (False, True)]


class LinenNetwork(nn.Module):
    """A dense layer, a norm, dropout, and a dense layer."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, freeze_statistics: bool = False) -> jax.Array:
        """Dropout follows `train`; norms also evaluate if their statistics are frozen."""
        x = jaxbn.linen.BatchNorm(use_running_average=freeze_statistics or not train, name="norm")(nn.Dense(8)(x))
        return nn.Dense(1)(nn.Dropout(0.1, deterministic=not train)(nn.relu(x)))


def linen_step(variables: Any, x: jax.Array, target: jax.Array, statistics: bool, affine: bool) -> Any:  # noqa: ANN401
    """The variables after one step, with the statistics and the affine parts frozen or not."""

    def labels(params: Any) -> Any:  # noqa: ANN401
        """`decay_mask` finds the scale and the bias of every norm, whatever its name."""
        return jax.tree.map(lambda other: "trained" if other or not affine else "frozen", jaxbn.decay_mask(params))

    def loss(params: Any) -> tuple[jax.Array, Any]:  # noqa: ANN401
        rngs, mutable = {"dropout": jax.random.key(0)}, ["batch_stats"]
        y, updates = LinenNetwork().apply(
            variables | {"params": params}, x, True, statistics, rngs=rngs, mutable=mutable
        )
        return optax.l2_loss(y, target).mean(), updates

    params = variables["params"]
    optimizer = optax.partition({"trained": optax.adamw(1e-2), "frozen": optax.set_to_zero()}, labels)
    gradients, statistics_then = jax.grad(loss, has_aux=True)(params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    return variables | {"params": optax.apply_updates(params, updates)} | statistics_then


class NNXNetwork(nnx.Module):
    """The same network."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.second = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
        self.norm, self.dropout = jaxbn.nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`train()`, `eval()` and `set_attributes` set the modes."""
        return self.second(self.dropout(nnx.relu(self.norm(self.first(x)))))


def nnx_step(model: NNXNetwork, x: jax.Array, target: jax.Array, statistics: bool, affine: bool) -> None:
    """Take one step in place, with the statistics and the affine parts frozen or not."""
    model.train()
    if statistics:
        model.set_attributes(jaxbn.nnx.BatchNorm, use_running_average=True)  # only the norms; dropout goes on training
    norms = {path for path, module in nnx.iter_modules(model) if isinstance(module, jaxbn.nnx.BatchNorm)}
    trained = nnx.All(nnx.Param, lambda path, _: not affine or path[:-1] not in norms)
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2), wrt=trained)
    gradients = nnx.grad(lambda model: optax.l2_loss(model(x), target).mean(), argnums=nnx.DiffState(0, trained))(model)
    optimizer.update(model, gradients)


def main() -> None:
    """Take one step for each choice, and check which variables have changed."""
    x, target = 3 + jax.random.normal(jax.random.key(0), (32, 4)), jnp.ones((32, 1))
    variables: Any = LinenNetwork().init(jax.random.key(1), x, train=False)
    for statistics, affine in CHOICES:
        new = linen_step(variables, x, target, statistics, affine)
        model = NNXNetwork(nnx.Rngs(0, dropout=1))
        before = nnx.to_pure_dict(nnx.state(model))
        nnx_step(model, x, target, statistics, affine)
        after = nnx.to_pure_dict(nnx.state(model))

        for collection, names, frozen in (
            ("batch_stats", ("mean", "var"), statistics),
            ("params", ("scale", "bias"), affine),
        ):
            for name in names:
                in_linen = (variables[collection]["norm"][name] == new[collection]["norm"][name]).all()
                in_nnx = (before["norm"][name] == after["norm"][name]).all()
                assert in_linen == in_nnx == frozen
        assert (after["first"]["kernel"] != before["first"]["kernel"]).any()
        frozen = [name for name, chosen in (("statistics", statistics), ("scale and bias", affine)) if chosen]
        print(f"frozen: {' and '.join(frozen) or 'nothing'}: as chosen, in Linen and NNX")


if __name__ == "__main__":
    main()
