"""Many runs of one network, over seeds and settings, in one compiled program."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import eval_jaxpr

import jaxbn.linen
from train.training.step import (
    Examples,
    StepOptions,
    TrainState,
    evaluate,
    init_state,
    prepare,
    step_key,
    train_step,
)

Tree = Any

NORM = partial(jaxbn.linen.BatchNorm, momentum=0.9)  # in every study, unless stated otherwise
EVALUATION_ROWS = 256

_listener: ContextVar[Callable[[int], None]] = ContextVar("listener", default=lambda _: None)


@contextlib.contextmanager
def told(listener: Callable[[int], None]) -> Iterator[None]:
    """A context in which a listener is called with the number of newly trained networks."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def product(run: Callable[..., Tree], *axes: Sequence[Any] | np.ndarray) -> Tree:
    """Return `run(*point)` at every point of the product of some axes, compiled once.

    On an accelerator all points run at once (`vmap`). On a CPU, where batching small matrix products gains nothing,
    they run one after the other. The listener of `told` is called after each.

    Args:
        run: a function of scalars that jax can trace.
        *axes: the values of each argument.

    Returns:
        The results of `run`, as NumPy arrays with the axes in front.

    Example:
        >>> product(lambda a, b: a + b, (1, 2), (10, 20, 30)).tolist()
        [[11, 21, 31], [12, 22, 32]]

    """
    columns = tuple(jnp.asarray(column) for column in zip(*itertools.product(*axes), strict=True))
    shape, count = tuple(len(axis) for axis in axes), len(columns[0])
    called, captured = with_captured(run, *(column[0] for column in columns))
    if jax.default_backend() == "cpu":
        compiled, each = jax.jit(called), []
        for point in zip(*columns, strict=True):
            each.append(jax.device_get(compiled(captured, *point)))
            _listener.get()(1)
        results = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    else:
        axes_in = (None, *(0 for _ in columns))
        results = jax.device_get(jax.jit(jax.vmap(called, axes_in))(captured, *columns))
        _listener.get()(count)
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(*shape, *leaf.shape[1:]), results)


def with_captured(run: Callable[..., Tree], *example: jax.Array) -> tuple[Callable[..., Tree], Sequence[jax.Array]]:
    """Return a function that takes the arrays that `run` captures as its first argument, and these arrays.

    As constants of the program, a whole test set would be converted by the compiler, which takes minutes.

    Example:
        >>> data = jnp.arange(3)
        >>> called, captured = with_captured(lambda factor: factor * data, jnp.array(2))
        >>> called(captured, 5).tolist()
        [0, 5, 10]

    """
    traced, shapes = jax.make_jaxpr(run, return_shape=True)(*example)

    def called(captured: Sequence[jax.Array], *point: jax.Array) -> Tree:
        leaves = eval_jaxpr(traced.jaxpr, captured, *point)
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return called, traced.consts


def orders(seed: jax.Array, examples: int, steps: int, batch_size: int) -> jax.Array:
    """The examples of each step, (steps, batch_size): each epoch is shuffled anew, and its remainder dropped."""
    each = examples // batch_size
    epochs = -(-steps // each)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), epochs)
    shuffled = jax.lax.map(lambda key: jax.random.permutation(key, examples)[: each * batch_size], keys)
    return shuffled.reshape(-1, batch_size)[:steps]


def start(model: nn.Module, tx: optax.GradientTransformation, data: Examples, seed: jax.Array) -> TrainState:
    """Return the state before the first step; the seed may be traced."""
    return init_state(model, tx, data.inputs[:2], seed)  # pyright: ignore[reportArgumentType]


def fit(
    model: nn.Module,
    tx: optax.GradientTransformation,
    state: TrainState,
    data: Examples,
    order: jax.Array,
    measure: Callable[[TrainState], Tree],
    *,
    every: int,
    seed: jax.Array | int = 0,
) -> tuple[TrainState, jax.Array, Tree]:
    """Train, and measure every so many steps.

    Args:
        model: called as `model(inputs, train)`.
        tx: the optimizer.
        state: the initial state.
        data: the training set.
        order: (steps, batch_size), from `orders`; `every` divides the steps.
        measure: computes the measurements from a state.
        every: the number of steps between two measurements.
        seed: the seed of dropout and other noise.

    Returns:
        The last state, the loss of each step, and the measurements, stacked.

    """
    options = StepOptions(seed=seed)  # pyright: ignore[reportArgumentType]

    def step(state: TrainState, rows: jax.Array) -> tuple[TrainState, jax.Array]:
        state, metrics = train_step(model, tx, state, data.at(rows), options)
        return state, metrics.loss / rows.size

    def interval(state: TrainState, rows: jax.Array) -> tuple[TrainState, tuple[jax.Array, Tree]]:
        state, losses = jax.lax.scan(step, state, rows)
        return state, (losses, measure(state))

    state, (losses, measured) = jax.lax.scan(interval, state, order.reshape(-1, every, order.shape[-1]))
    return state, losses.ravel(), measured


def accuracy(model: nn.Module, data: Examples) -> Callable[[TrainState], jax.Array]:
    """Return a function from a state to its accuracy on a set, in evaluation mode and in percent."""

    def measure(state: TrainState) -> jax.Array:
        metrics = evaluate(model, state, data, EVALUATION_ROWS)
        return 100 * metrics.correct / metrics.count

    return measure


def training_loss(model: nn.Module, state: TrainState, batch: Examples, seed: jax.Array | int, params: Tree) -> Tree:
    """The loss of a batch in training mode, with noise that depends on the seed and the step alone."""
    logits, _ = model.apply(
        state._replace(params=params).variables,
        prepare(batch.inputs),
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": step_key(seed, state.step)},  # pyright: ignore[reportArgumentType]
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()


def scale_kernels(state: TrainState, factor: jax.Array) -> TrainState:
    """Multiply all kernels by a number, so that the initial standard deviation can be traced."""

    def scale(path: Any, leaf: jax.Array) -> jax.Array:  # noqa: ANN401
        return leaf * factor if jax.tree_util.keystr(path).endswith("['kernel']") else leaf

    return state._replace(params=jax.tree_util.tree_map_with_path(scale, state.params))
