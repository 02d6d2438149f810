"""Layers of other libraries that are trained here and can be converted to jaxbn at any time."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxbn import interop

EPSILON = 1e-3
DECAY = 0.9  # the weight of the old statistic


class Learned(NamedTuple):
    """Scale and bias, float32 of shape (C,), or None."""

    scale: np.ndarray | None
    bias: np.ndarray | None


class Live(Protocol):
    """A library's layer with channels last, which `jaxbn.interop` can convert at any time."""

    def train(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the batch, and updates the running statistics."""
        ...

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the running statistics."""
        ...

    def converted(self) -> interop.Layer:
        """The current layer, converted by `jaxbn.interop`."""
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
