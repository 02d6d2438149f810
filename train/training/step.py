"""One training step, many of them, and evaluation: pure functions over a state."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """The state that a step changes."""

    step: jax.Array  # int32 scalar: steps taken
    params: Any  # what is learned
    batch_stats: Any  # the norms' running statistics
    optimizer: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the network, for its `apply`."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class Metrics(NamedTuple):
    """Sums over examples, so that they add up exactly."""

    loss: jax.Array  # float32 scalar: summed cross-entropy, nats
    correct: jax.Array  # int32 scalar
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # int32 scalar: examples


class Examples(NamedTuple):
    """A split on the device."""

    inputs: jax.Array  # uint8 images (N, H, W, C), or float32 features
    labels: jax.Array  # int32 (N,)

    def at(self, rows: Any) -> "Examples":  # noqa: ANN401  (indices or a slice)
        """Some of them."""
        return Examples(self.inputs[rows], self.labels[rows])


class StepOptions(NamedTuple):
    """Options of a step, fixed for a run."""

    label_smoothing: float = 0.0  # share of the target that is spread over all classes
    seed: int = 0  # of dropout and shifts


PLAIN_STEP = StepOptions()


def undivided(rows: jax.Array) -> jax.Array:
    """Return rows as they are: on one device they are not divided."""
    return rows


def no_metrics() -> Metrics:
    """Sums over no examples."""
    return Metrics(loss=jnp.zeros(()), correct=jnp.zeros((), jnp.int32), count=jnp.zeros((), jnp.int32))


def init_state(model: nn.Module, tx: optax.GradientTransformation, inputs: jax.Array, seed: int) -> TrainState:
    """The state before the first step."""
    variables = model.init(jax.random.key(seed), prepare(inputs), train=False)
    params: Any = variables.get("params", {})
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), tx.init(params))


def prepare(inputs: jax.Array) -> jax.Array:
    """Convert images to float32 in [0, 1]; leave features as they are."""
    return inputs.astype(jnp.float32) / 255 if inputs.dtype == jnp.uint8 else inputs


def train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    state: TrainState,
    batch: Examples,
    options: StepOptions = PLAIN_STEP,
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent on the mean cross-entropy of a batch, with optional label smoothing."""

    def loss(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:  # noqa: ANN401
        logits, updates = model.apply(
            state._replace(params=params).variables,
            prepare(batch.inputs),
            train=True,
            mutable=["batch_stats"],
            rngs=dict.fromkeys(("dropout", "shift"), step_key(options.seed, state.step)),
        )
        metrics = metrics_of(logits, batch.labels, jnp.ones(batch.labels.shape, bool))
        mean = metrics.loss / batch.labels.size
        if options.label_smoothing:
            spread = -jax.nn.log_softmax(logits.astype(metrics.loss.dtype)).mean()
            mean = (1 - options.label_smoothing) * mean + options.label_smoothing * spread
        return mean, (updates.get("batch_stats", {}), metrics)

    gradients, (batch_stats, metrics) = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = tx.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def step_key(seed: int, step: jax.Array) -> jax.Array:
    """The key of a step, from seed and step only, so that no random state is stored."""
    return jax.random.fold_in(jax.random.key(seed), step)


def train_steps(
    model: nn.Module,
    tx: optax.GradientTransformation,
    state: TrainState,
    data: Examples,
    order: jax.Array,
    span: tuple[jax.Array, jax.Array],
    batch_size: int,
    options: StepOptions = PLAIN_STEP,
    divide: Callable[[jax.Array], jax.Array] = undivided,
) -> tuple[TrainState, Metrics]:
    """Take the steps from `span[0]` to `span[1]` of an epoch that visits the data in `order`, in a loop on the devices.

    Sharding the chosen indices is enough: everything computed from them follows.
    """

    def body(i: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, total = carry
        chosen = divide(jax.lax.dynamic_slice_in_dim(order, i * batch_size, batch_size))
        state, metrics = train_step(model, tx, state, data.at(chosen), options)
        return state, add(total, metrics)

    return jax.lax.fori_loop(*span, body, (state, no_metrics()))


def evaluate(
    model: nn.Module,
    state: TrainState,
    data: Examples,
    batch_size: int,
    divide: Callable[[jax.Array], jax.Array] = undivided,
) -> Metrics:
    """Sum the metrics of a split; each example counts once, whatever the batch size."""
    n = data.labels.size

    def body(i: jax.Array, total: Metrics) -> Metrics:
        positions = divide(i * batch_size + jnp.arange(batch_size))
        chosen = jnp.minimum(positions, n - 1)  # the last batch is filled up with an example that is not counted
        logits = cast(jax.Array, model.apply(state.variables, prepare(data.inputs[chosen]), train=False))
        return add(total, metrics_of(logits, data.labels[chosen], positions < n))

    return jax.lax.fori_loop(0, -(-n // batch_size), body, no_metrics())


def metrics_of(logits: jax.Array, labels: jax.Array, counted: jax.Array) -> Metrics:
    """Sum the metrics of the `counted` examples."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return Metrics(
        loss=jnp.sum(losses, where=counted),
        correct=jnp.sum(jnp.argmax(logits, -1) == labels, where=counted, dtype=jnp.int32),
        count=jnp.sum(counted, dtype=jnp.int32),
    )


def add(a: Metrics, b: Metrics) -> Metrics:
    """Add the sums of two metrics."""
    return Metrics(*(x + y for x, y in zip(a, b, strict=True)))
