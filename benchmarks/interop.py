"""How far is jaxbn from each library that it converts from and to, in training and in evaluation?

    python -m benchmarks.interop [--quick] [--markdown] [--json FILE]

Each library's own layer and `jaxbn.batch_norm`, which starts from that layer's arrays and options by `jaxbn.interop`,
are trained on the same ten batches, float32, 32×8×8×16, mean 3 and deviation 2, scale and bias random. The table shows
the largest difference over seeds, steps and channels:

* of the outputs in training, and of the running statistics after each step, relative to the largest;
* of the outputs in evaluation on a fresh batch: "converted", by what the library learned and tracked, converted once it
  has been trained; "both trained", by what each tracked itself.

Equinox differs where it is known to: mode "batch" evaluates with too large a variance, mode "ema" normalises with the
running statistics in training. Takes a few seconds.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxbn
from benchmarks import harness
from benchmarks.case import OURS
from benchmarks.installed import installed
from jaxbn import interop

SHAPE = (32, 8, 8, 16)
STEPS = 10
AXES = (0, 1, 2)
EPSILON = 1e-3
DECAY = 0.9  # the weight of the old statistic


@dataclass(frozen=True)
class Options:
    """How far is jaxbn from each library?"""

    quick: bool = False
    """One seed and a small array."""
    seeds: int = 3
    markdown: bool = False
    """Print a table to paste into the documentation."""
    json: Path | None = None
    """Also write every number to this file."""


class Learned(NamedTuple):
    """Scale and bias, float32 of shape (C,); None where there is none."""

    scale: np.ndarray | None
    bias: np.ndarray | None


class Live(Protocol):
    """A library's layer, channels last, of whose arrays interop makes ours at any time."""

    def train(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the batch, and updates the running statistics."""
        ...

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the running statistics."""
        ...

    def converted(self) -> interop.Layer:
        """What interop makes of the layer as it is now."""
        ...


class Torch:
    """PyTorch's BatchNorm2d, on the CPU."""

    def __init__(self, learned: Learned, channels: int, momentum: float | None = 1 - DECAY, track: bool = True):
        import torch

        self.momentum = momentum
        affine = {"affine": learned.scale is not None, "bias": learned.bias is not None}
        self.layer = torch.nn.BatchNorm2d(channels, EPSILON, momentum, track_running_stats=track, **affine)
        values = zip((self.layer.weight, self.layer.bias), learned, strict=True)
        with torch.no_grad():
            for parameter, value in values:
                if value is not None:
                    parameter.copy_(torch.from_numpy(value))

    def train(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the batch, and updates the running statistics."""
        return self._apply(self.layer.train(), x)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the running statistics."""
        return self._apply(self.layer.eval(), x)

    def converted(self) -> interop.Layer:
        """From the state dict."""
        return interop.from_torch(self.layer.state_dict(), momentum=self.momentum, eps=EPSILON)

    def _apply(self, layer: Any, x: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return layer(torch.from_numpy(x).movedim(-1, 1)).movedim(1, -1).numpy()


class Keras:
    """Keras' BatchNormalization, computed by JAX."""

    def __init__(self, learned: Learned, channels: int):
        os.environ.setdefault("KERAS_BACKEND", "jax")  # read when Keras is imported
        import keras

        self.flags: dict[str, Any] = {"scale": learned.scale is not None, "center": learned.bias is not None}
        self.layer = keras.layers.BatchNormalization(momentum=DECAY, epsilon=EPSILON, **self.flags)
        self.layer.build((None, None, None, channels))
        statistics = [np.zeros(channels, np.float32), np.ones(channels, np.float32)]
        self.layer.set_weights([*(value for value in learned if value is not None), *statistics])

    def train(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the batch, and updates the running statistics."""
        return np.asarray(self.layer(x, training=True))

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the running statistics."""
        return np.asarray(self.layer(x, training=False))

    def converted(self) -> interop.Layer:
        """From the list of weights."""
        return interop.from_keras(self.layer.weights, momentum=DECAY, epsilon=EPSILON, **self.flags)


class Haiku:
    """Haiku's BatchNorm."""

    def __init__(self, learned: Learned, channels: int):
        import haiku as hk

        def norm(x: jax.Array, is_training: bool) -> jax.Array:
            layer = hk.BatchNorm(learned.scale is not None, learned.bias is not None, DECAY, EPSILON)
            return layer(x, is_training)

        self.transformed = hk.transform_with_state(norm)
        zeros = jnp.zeros((2, 1, 1, channels))
        self.params: Any
        self.state: Any
        self.params, self.state = self.transformed.init(None, zeros, is_training=True)
        values = {"scale": learned.scale, "offset": learned.bias}
        given = {key: np.reshape(value, (1, 1, 1, -1)) for key, value in values.items() if value is not None}
        self.params = {"batch_norm": given} if given else {}

    def train(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the batch, and updates the running statistics."""
        y, self.state = self.transformed.apply(self.params, self.state, None, x, is_training=True)
        return np.asarray(y)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the running statistics."""
        return np.asarray(self.transformed.apply(self.params, self.state, None, x, is_training=False)[0])

    def converted(self) -> interop.Layer:
        """From the dicts of parameters and of state."""
        return interop.from_haiku(self.params, self.state, decay_rate=DECAY, eps=EPSILON)


class Equinox:
    """Equinox's BatchNorm, in either mode."""

    def __init__(self, learned: Learned, channels: int, mode: Any = "batch"):
        import equinox as eqx

        make = eqx.nn.make_with_state(eqx.nn.BatchNorm)
        affine = learned.scale is not None
        self.layer, self.state = make(channels, "batch", EPSILON, affine, DECAY, mode=mode)
        if affine:
            self.layer = eqx.tree_at(lambda layer: (layer.weight, layer.bias), self.layer, learned)

    def train(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the batch, and updates the running statistics."""
        y, self.state = self._apply(x, inference=False)
        return y

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the running statistics."""
        return self._apply(x, inference=True)[0]

    def arrays(self) -> dict[str, Any]:
        """The layer's arrays and the state's, by the names of the layer's fields."""
        names = ("batch_counter", "batch_state_index", "ema_first_time_index", "ema_state_index")
        indices = {name: getattr(self.layer, name) for name in names}
        tracked = {name: self.state.get(index) for name, index in indices.items() if index is not None}
        return {"weight": self.layer.weight, "bias": self.layer.bias} | tracked

    def converted(self) -> interop.Layer:
        """From the arrays."""
        return interop.from_equinox(self.arrays(), momentum=DECAY, eps=EPSILON)

    def _apply(self, x: np.ndarray, inference: bool) -> tuple[np.ndarray, Any]:
        def apply(example: jax.Array, state: Any) -> tuple[jax.Array, Any]:
            return self.layer(example, state, inference=inference)

        mapped = jax.vmap(apply, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        y, state = mapped(jnp.moveaxis(jnp.asarray(x), -1, 1), self.state)
        return np.moveaxis(np.asarray(y), 1, -1), state


LIBRARIES: dict[str, tuple[str, Callable[[Learned, int], Live]]] = {  # the module that each needs
    "PyTorch": ("torch", Torch),
    "PyTorch momentum=None": ("torch", lambda learned, channels: Torch(learned, channels, momentum=None)),
    "Keras (JAX)": ("keras", Keras),
    "Haiku": ("haiku", Haiku),
    'Equinox "batch"': ("equinox", Equinox),
    'Equinox "ema"': ("equinox", lambda learned, channels: Equinox(learned, channels, "ema")),
}


class Step(NamedTuple):
    """What a training step gave on both sides."""

    theirs: np.ndarray
    ours: np.ndarray
    their_state: jaxbn.BatchNormState | None  # as interop converts it
    our_state: jaxbn.BatchNormState | None


def batches(shape: tuple[int, ...], seed: int, steps: int = STEPS, mean: float = 3.0) -> Iterator[np.ndarray]:
    """Normal entries of deviation 2, float32."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        yield (2 * random.standard_normal(shape) + mean).astype(np.float32)


def make_learned(channels: int, seed: int) -> Learned:
    """A scale of about 1 and a bias of about 0."""
    random = np.random.default_rng(seed)
    scale, bias = random.uniform(0.5, 1.5, channels), random.standard_normal(channels)
    return Learned(scale.astype(np.float32), bias.astype(np.float32))


def train_both(live: Live, given: Iterator[np.ndarray]) -> Iterator[Step]:
    """Trains the library's layer and ours, which is converted once, before the first step."""
    params, state, options = live.converted()
    for x in given:
        y, state = jaxbn.batch_norm(params, state, x, train=True, **options)
        theirs = live.train(x)
        yield Step(theirs, np.asarray(y), live.converted().state, state)


def measure(live: Live, shape: tuple[int, ...], seed: int) -> dict[str, float]:
    """The differences that the table shows."""
    *given, fresh = batches(shape, seed, STEPS + 1)
    params, _, options = live.converted()
    steps = list(train_both(live, iter(given)))
    last, evaluated = steps[-1], live.evaluate(fresh)
    converted, trained = (
        jaxbn.batch_norm(params, state, fresh, train=False, **options)[0]
        for state in (last.their_state, last.our_state)
    )
    statistics = [(step.their_state, step.our_state) for step in steps if step.their_state and step.our_state]
    return {
        "training": max(difference(step.theirs, step.ours) for step in steps),
        "running mean": max(relative(theirs.mean, ours.mean) for theirs, ours in statistics),
        "running variance": max(relative(theirs.var, ours.var) for theirs, ours in statistics),
        "evaluation, converted": difference(evaluated, converted),
        "evaluation, both trained": difference(evaluated, trained),
    }


def difference(left: Any, right: Any) -> float:
    """The largest difference."""
    return float(np.abs(np.asarray(left, np.float64) - np.asarray(right, np.float64)).max())


def relative(left: Any, right: Any) -> float:
    """The largest difference, in units of the largest of the right ones."""
    return difference(left, right) / float(np.abs(np.asarray(right)).max())


def main(options: Options) -> None:
    """Measures and prints."""
    facts = harness.environment()
    harness.show_facts(facts)
    shape, seeds = ((8, 4, 4, 16), 1) if options.quick else (SHAPE, options.seeds)
    records = []
    for name, (module, make) in LIBRARIES.items():
        if installed(module):
            found = [measure(make(make_learned(shape[-1], seed), shape[-1]), shape, seed) for seed in range(seeds)]
            records.append({"library": name} | {key: max(each[key] for each in found) for key in found[0]})
    if not records:
        return
    columns = list(records[0])
    rows = [[record["library"], *(f"{record[key]:.1e}" for key in columns[1:])] for record in records]
    title = f"largest differences to {OURS}, {STEPS} steps, float32, {'×'.join(map(str, shape))}"
    harness.show_table(title, columns, rows, options.markdown)
    harness.save_json(options.json, options, facts, records)


if __name__ == "__main__":
    main(tyro.cli(Options))
