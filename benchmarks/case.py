"""The inputs of a layer of batch normalization in the benchmarks, and the interface of every library's layer."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

EPSILON = 1e-5
MOMENTUM = 0.99  # the weight of the old statistic
OURS = "jaxbn"


class Kind(NamedTuple):
    """The part of a case that determines its compiled program."""

    shape: tuple[int, ...]
    dtype: np.dtype
    relu: bool


class Case(NamedTuple):
    """The inputs of a layer: NumPy arrays of one type with channels last; `scale` and `bias` are float32."""

    x: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    cotangent: np.ndarray  # the cotangent of the result
    residual: np.ndarray | None = None  # added after the normalization
    relu: bool = False  # applied after that

    @property
    def kind(self) -> Kind:
        """The part of the case that a library must know in advance."""
        return Kind(self.x.shape, self.x.dtype, self.relu)


class Peer(Protocol):
    """The interface of a library in the benchmarks."""

    @property
    def name(self) -> str:
        """The name of the library in the tables."""
        ...

    def step(self, case: Case) -> Callable[[], Any]:
        """A function that computes `(y, gradients, new state)` each time, from arrays already on the device."""
        ...

    def result_and_gradient(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """The result and the gradient of `x`, channels last."""
        ...

    def kept_bytes(self, case: Case) -> int:
        """The bytes kept between forward and backward pass, in arrays with at least half the entries of `x`."""
        ...
