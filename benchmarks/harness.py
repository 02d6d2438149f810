"""Timing of functions side by side, and records of the measurement, the machine and the versions.

On a shared machine, an absolute time says little. So the functions take turns (A B C A B C ...), and the ratio of two
functions is the median, over the turns, of the ratio within a turn: a disturbance of a whole turn slows both.
A plain copy of an array takes its turn with them, as a measure of the time that memory alone would need.
"""

import contextlib
import ctypes
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from train.host import files
from train.host.machine import usable_processors

_LIBRARIES = ("jax", "jaxlib", "numpy", "jaxbn", "flax", "dm-haiku", "equinox", "keras", "torch")
_FEWEST_TURNS, _MOST_TURNS = 5, 200
_REHEARSAL_SECONDS = 0.005


@dataclass(frozen=True)
class Timing:
    """How long one function took, turn by turn."""

    seconds: tuple[float, ...]  # of one call, one entry a turn

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile, in seconds."""
        lower, median, upper = np.quantile(self.seconds, (0.25, 0.5, 0.75))
        return float(lower), float(median), float(upper)

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return self.quartiles[1]

    def ratio(self, reference: "Timing") -> float:
        """How many times as long as the reference: the median of the ratios within each turn."""
        return float(np.median(np.divide(self.seconds, reference.seconds)))


def time_side_by_side(functions: Mapping[str, Callable[[], object]], seconds: float = 2.0) -> dict[str, Timing]:
    """Times functions in turns until the time is spent, five turns at least.

    Before it is timed in its turn, a function is called untimed, for five milliseconds at least: else it pays for its
    predecessor, for what that left in the caches and for its threads, which may spin for a while before they sleep.
    (PyTorch's do, on a CPU; whatever came next took up to 1.6 times as long. A pause instead would let others cool.)

    Args:
        functions: what to time, by name; each call does the whole work again and returns its results.
        seconds: how long to go on, after the first calls (which compile).
    """
    keep_memory()
    for function in functions.values():
        _finish(function())
    # Calls to a GPU are queued: several in a row are timed together, so that the queue, and not Python, sets the pace.
    # On a CPU they could overlap, and each one is waited for.
    calls = 1 if jax.default_backend() == "cpu" else 10
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    for turn in range(_MOST_TURNS):
        if turn >= _FEWEST_TURNS and time.perf_counter() > end:
            break
        for name, function in functions.items():
            _rehearse(function)
            start = time.perf_counter()
            for _ in range(calls - 1):
                function()
            _finish(function())
            times[name].append((time.perf_counter() - start) / calls)
    return {name: Timing(tuple(values)) for name, values in times.items()}


def keep_memory() -> None:
    """Has the C library keep what is freed, where it can (glibc), up to arrays of 32 MiB.

    Else the system is asked for fresh memory at every call, or not, as chance and all that ran before will have it, and
    a layer takes 1.1 to 2.2 times as long with it.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, another system
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        for parameter, value in ((mmap_threshold, 2**25), (trim_threshold, 2**31 - 1), (top_pad, 2**29)):
            mallopt(parameter, value)


def _rehearse(function: Callable[[], object]) -> None:
    end = time.perf_counter() + _REHEARSAL_SECONDS
    while True:
        _finish(function())
        if time.perf_counter() >= end:
            return


def _finish(result: object) -> None:
    """Wait until a result is computed: JAX always returns earlier, PyTorch on a GPU."""
    jax.block_until_ready(result)
    if torch_device() == "cuda":
        sys.modules["torch"].cuda.synchronize()


def torch_device() -> str:
    """The device of PyTorch, if it is imported: that of JAX if possible."""
    torch = sys.modules.get("torch")
    return "cuda" if jax.default_backend() == "gpu" and torch is not None and torch.cuda.is_available() else "cpu"


class Copy:
    """A copy of an array into existing memory: two passes over it, at the bandwidth of the memory."""

    def __init__(self, x: jax.Array):
        self._x, self._target = x, jnp.copy(x)

    def __call__(self) -> jax.Array:
        """Copies once."""
        self._target = _copy_into(self._target, self._x)
        return self._target


@partial(jax.jit, donate_argnums=0, keep_unused=True)
def _copy_into(target: jax.Array, x: jax.Array) -> jax.Array:
    """Copy into the donated target, since fresh memory from the system can cost more than the copy."""
    return jnp.copy(x)


def machine_rates(seconds: float = 0.5) -> dict[str, float]:
    """The best rates of the machine: copying 64 MiB, in GB/s, and multiplying float32 matrices, in GFLOP/s."""
    x, left, right = (jnp.ones(shape, jnp.float32) for shape in ((4096, 4096), (1024, 2048), (2048, 1024)))
    matmul = jax.jit(jnp.matmul)
    timings = time_side_by_side({"copy": Copy(x), "matmul": lambda: matmul(left, right)}, seconds)
    return {
        "copy, GB/s": 2 * x.nbytes / timings["copy"].median / 1e9,
        "float32 matmul at default precision, GFLOP/s": 2 * left.size * right.shape[1] / timings["matmul"].median / 1e9,
    }


def environment() -> dict[str, str]:
    """The device, the processor, the threads and the versions, without which a time means nothing."""
    device = jax.devices()[0]
    others = psutil.cpu_percent(interval=0.5) / 100  # while this process waits
    facts = {
        "device": f"{device.device_kind} ({device.platform})",
        "processor": f"{_processor()}, {usable_processors()} of {os.cpu_count()} CPUs usable",
        "other work": f"{others:.0%} of the CPUs" + (", busy: trust no time" if others > 0.15 else ""),
        "threads": " ".join(f"{name}={os.environ.get(name, '')!r}" for name in ("OMP_NUM_THREADS", "XLA_FLAGS")),
    }
    if (torch := sys.modules.get("torch")) is not None:
        facts["PyTorch on"] = f"{torch_device()}, {torch.get_num_threads()} threads"
    return facts | {"versions": f"Python {platform.python_version()}, {_versions()}"}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> str:
    versions = []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(versions)


def show_facts(facts: Mapping[str, object]) -> None:
    """Prints one line for each fact."""
    for name, value in facts.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> None:
    """Prints a table for people, or one to paste into the documentation; the first column holds the rows' names."""
    if markdown:
        lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
        print(f"**{title}**\n", *("| " + " | ".join(line) + " |" for line in lines), "", sep="\n")
        return
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 160  # a file has no width: rich would take 80 columns
    Console(width=width).print(table)


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape that an option gives as text.

    Example:
        >>> parse_shape("128x26x26x32")
        (128, 26, 26, 32)

    """
    return tuple(map(int, text.split("x")))


def save_json(
    path: Path | None, options: Any, facts: Mapping[str, object], records: Sequence[Mapping[str, object]]
) -> None:
    """Writes what was asked for (a dataclass), the facts and a record a measurement; nothing where there is no path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        saved = {"options": vars(options), "environment": facts, "records": records}
        files.write(path, json.dumps(saved, indent=1, default=str) + "\n")
