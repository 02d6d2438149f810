"""What a layer of batch normalization is given in the benchmarks, and what every library's looks like to them."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

EPSILON = 1e-5
MOMENTUM = 0.99  # the weight of the old statistic
OURS = "jaxbn"


class Kind(NamedTuple):
    """What of a case decides which program is compiled for it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    relu: bool


class Case(NamedTuple):
    """What a layer is given: NumPy arrays of one type, channels last, but float32 for `scale` and `bias`."""

    x: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    cotangent: np.ndarray  # of the result
    residual: np.ndarray | None = None  # added after the normalization
    relu: bool = False  # applied after that

    @property
    def kind(self) -> Kind:
        """What a library must know beforehand."""
        return Kind(self.x.shape, self.x.dtype, self.relu)


class Peer(Protocol):
    """A library, as the benchmarks see it."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        ...

    def step(self, case: Case) -> Callable[[], Any]:
        """A function that computes `(y, gradients, new state)` each time, from arrays already on the device."""
        ...

    def result_and_gradient(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """The result and the gradient of `x`, channels last."""
        ...

    def kept_bytes(self, case: Case) -> int:
        """What is kept between forward and backward pass: the sum over arrays of at least half the entries of `x`."""
        ...
