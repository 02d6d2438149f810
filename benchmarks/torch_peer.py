"""PyTorch's layer of batch normalization, eager or compiled, in either memory format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.case import EPSILON, MOMENTUM, Case, Kind
from benchmarks.harness import torch_device


@dataclass(frozen=True)
class TorchPeer:
    """PyTorch; residual and activation in place, as torchvision's ResNets have them."""

    name: str
    channels_last: bool  # the memory format
    compiled: bool = False  # by torch.compile: forward as written, backward as autograd derives it from there

    def step(self, case: Case) -> Callable[[], tuple]:
        """Forward and backward pass, with the tensors on the device."""
        import torch

        forward, inputs, state = self._forward(case)
        g = self._tensor(case.cotangent)

        def run() -> tuple:
            y = forward()
            return y, torch.autograd.grad(y, inputs, g), state

        return run

    def result_and_gradient(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """The result and the gradient of `x`, channels last."""
        y, (dx, *_), _ = self.step(case)()
        y, dx = (t.detach().movedim(1, -1).float().cpu().numpy().astype(case.x.dtype) for t in (y, dx))
        return y, dx

    def kept_bytes(self, case: Case) -> int:
        """The tensors that autograd saves."""
        forward, *_ = self._forward(case)
        return saved_bytes(forward, case.x.size // 2)

    def _forward(self, case: Case) -> tuple[Callable[[], Any], list[Any], list[Any]]:
        """The forward pass, the tensors that it is differentiated by, and those that it updates."""
        given = (case.x, case.scale, case.bias, case.residual)
        inputs = [self._tensor(array).requires_grad_() for array in given if array is not None]
        mean, var = state = [self._tensor(start) for start in (np.zeros_like(case.bias), np.ones_like(case.scale))]

        block = _compiled(case.kind) if self.compiled else _block(case.relu)
        return lambda: block(mean, var, inputs), inputs, state

    def _tensor(self, array: np.ndarray) -> Any:
        import torch

        dtype = torch.bfloat16 if array.dtype == jnp.bfloat16 else torch.float32
        tensor = torch.from_numpy(array.astype(np.float32)).to(torch_device(), dtype)
        tensor = tensor.movedim(-1, 1) if tensor.ndim > 1 else tensor
        return tensor if self.channels_last else tensor.contiguous()


def _block(relu: bool) -> Callable[[Any, Any, Sequence[Any]], Any]:
    """A function of the running mean and variance, which it updates, and of what is differentiated."""
    from torch.nn import functional

    def block(mean: Any, var: Any, inputs: Sequence[Any]) -> Any:
        x, scale, bias, *residual = inputs
        y = functional.batch_norm(x, mean, var, scale, bias, training=True, momentum=1 - MOMENTUM, eps=EPSILON)
        for r in residual:
            y += r
        return functional.relu_(y) if relu else y

    return block


@cache
def _compiled(kind: Kind) -> Callable[[Any, Any, Sequence[Any]], Any]:
    """The same, compiled at its first call for the arrays given; PyTorch would stop after eight kinds of arrays."""
    import torch
    import torch._dynamo  # where its limits are

    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1000
    return torch.compile(_block(kind.relu), fullgraph=True, dynamic=False)


def saved_bytes(forward: Callable[[], Any], least_entries: int) -> int:
    """The tensors of so many entries at least that autograd saves during a forward pass, each memory once."""
    import torch

    kept: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        if tensor.numel() >= least_entries:
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(kept.values())
