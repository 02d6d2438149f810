"""The other libraries that are installed, for comparison."""

import importlib
import os
from functools import cache

from benchmarks.harness import torch_device


@cache
def installed(name: str) -> bool:
    """True if a module can be imported (Keras with JAX), or `torch.compile` works; prints the reason if not, once."""
    reason = _compiler_missing() if name == "torch.compile" else _module_missing(name)
    if reason:
        print(f"left out: {name} ({reason})")
    return not reason


def _module_missing(name: str) -> str:
    os.environ.setdefault("KERAS_BACKEND", "jax")  # read when Keras is imported
    try:
        library = importlib.import_module(name)
    except ImportError as error:
        return str(error)
    if name == "keras" and library.backend.backend() != "jax":
        return f"its backend is {library.backend.backend()}; set KERAS_BACKEND=jax"
    return ""


def _compiler_missing() -> str:
    """Compile a trivial function, which fails without a C++ compiler, or a Triton, that suits this PyTorch."""
    try:
        import torch

        torch.compile(torch.nn.functional.relu)(torch.ones(8, device=torch_device()))
    except Exception as error:  # of many kinds: whatever it is, others can still be compared with
        first, *_ = str(error).splitlines() or [type(error).__name__]
        return f"it cannot compile here: {first}"
    return ""
