"""Keras's layer on PyTorch, in a separate process: Keras chooses its backend once, and in this process that is JAX.

The functions at the end run in the child, on the device that PyTorch uses here and with as many threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from benchmarks.case import EPSILON, MOMENTUM, Case
from benchmarks.elsewhere import Elsewhere
from benchmarks.harness import torch_device
from benchmarks.torch_peer import saved_bytes


@cache
def keras_on_torch() -> Elsewhere:
    """The child process, with the device and the threads of PyTorch in this one."""
    import torch

    # JAX is imported there too, by Keras, and must not take the memory of a GPU.
    environment = {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": torch_device(), "JAX_PLATFORMS": "cpu"}
    process = Elsewhere(environment)
    process.run("torch:set_num_threads", torch.get_num_threads())
    process.run("benchmarks.harness:keep_memory")
    return process


@dataclass(frozen=True)
class KerasTorchPeer:
    """Keras's layer as its users call it on PyTorch: eager, with residual and activation after it."""

    name: str

    def step(self, case: Case) -> Callable[[], None]:
        """A forward and backward pass in the child; the results stay there."""
        return keras_on_torch().prepare(f"{__name__}:norm_step", case)

    def result_and_gradient(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """The result and the gradient of `x`, channels last."""
        y, dx, _ = self.outcome(case)
        return y, dx

    def outcome(self, case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The result, the gradient of `x`, and the running mean afterwards."""
        return cast(Any, keras_on_torch().run(f"{__name__}:norm_outcome", case))

    def kept_bytes(self, case: Case) -> int:
        """The tensors that autograd saves."""
        return cast(int, keras_on_torch().run(f"{__name__}:norm_kept_bytes", case))


def norm_step(case: Case) -> Callable[[], None]:
    """In the child: forward and backward pass, finished when it returns."""
    import torch

    forward, inputs, _ = _norm(case)
    g = _tensor(case.cotangent)

    def run() -> None:
        torch.autograd.grad(forward(), inputs, g)
        if g.is_cuda:
            torch.cuda.synchronize()

    return run


def norm_outcome(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In the child: the result, the gradient of `x`, and the running mean afterwards."""
    import torch

    forward, inputs, layer = _norm(case)
    y = forward()
    dx, *_ = torch.autograd.grad(y, inputs, _tensor(case.cotangent))
    y, dx = (t.detach().float().cpu().numpy().astype(case.x.dtype) for t in (y, dx))
    return y, dx, layer.moving_mean.numpy()


def norm_kept_bytes(case: Case) -> int:
    """In the child: the bytes that autograd saves."""
    forward, *_ = _norm(case)
    return saved_bytes(forward, case.x.size // 2)


def _norm(case: Case) -> tuple[Callable[[], Any], list[Any], Any]:
    """The forward pass, the tensors that it is differentiated by, and the layer."""
    import keras
    import torch

    policy = "mixed_bfloat16" if case.x.dtype == jnp.bfloat16 else "float32"
    layer: Any = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, dtype=policy)
    layer.build(case.x.shape)
    layer.set_weights([case.scale, case.bias, *layer.get_weights()[2:]])
    x, *residual = (_tensor(a).requires_grad_() for a in (case.x, case.residual) if a is not None)

    def forward() -> Any:
        y = layer(x, training=True)
        for r in residual:
            y = y + r
        return torch.nn.functional.relu(y) if case.relu else y

    return forward, [x, layer.gamma.value, layer.beta.value, *residual], layer


def _tensor(array: np.ndarray) -> Any:
    import keras

    return keras.ops.convert_to_tensor(array.astype(np.float32), dtype=array.dtype.name)
