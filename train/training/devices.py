"""The devices of a run: each batch is divided among them, and everything else is copied to each of them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.host.errors import UsageError

Tree = TypeVar("Tree")

AXIS = "data"
COMPILED_QUICKLY = {"xla_backend_optimization_level": 1}  # random numbers then compile in a third of the time


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that a run computes on.

    Attributes:
        mesh: the devices of all processes; None: the default device alone, on which nothing is divided.

    """

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """The number of devices of all processes."""
        return 1 if self.mesh is None else self.mesh.size

    def put(self, tree: Any) -> Any:  # noqa: ANN401  (a tree of the same form)
        """Copy arrays of the host, which are the same in every process, to each device."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        everywhere = NamedSharding(self.mesh, PartitionSpec())

        def place(array: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

        return jax.tree.map(lambda leaf: place(np.asarray(leaf)), tree)

    def fetch(self, tree: Tree) -> Tree:
        """Fetch arrays that are copied to each device, for a computation of this process alone."""
        return tree if self.mesh is None else jax.tree.map(np.asarray, tree)

    def jit(self, function: Callable[..., Any], *, once: bool = False, **options: Any) -> Any:  # noqa: ANN401  (a jitted function)
        """Apply `jax.jit` to a function whose arguments and results are copied to each device.

        A program that runs only `once` is compiled quickly on CPU.
        """
        if once and jax.default_backend() == "cpu":
            options["compiler_options"] = COMPILED_QUICKLY
        if self.mesh is None:
            return jax.jit(function, **options)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(function, in_shardings=everywhere, out_shardings=everywhere, **options)

    def divide(self, rows: jax.Array) -> jax.Array:
        """In a jitted function, give each device its shard of the rows, and of everything computed from each row.

        The compiler makes sums over the rows sums over the devices.
        """
        if self.mesh is None:
            return rows
        return jax.lax.with_sharding_constraint(rows, NamedSharding(self.mesh, PartitionSpec(AXIS)))

    def round_up(self, rows: int) -> int:
        """The number of rows, rounded up to a multiple of the number of devices."""
        return -(-rows // self.count) * self.count


ONE = Devices()


def choose(wanted: int | None) -> Devices:
    """Choose devices: the same number from each process; None: all.

    Raises:
        UsageError: a process has fewer devices.

    """
    local = jax.local_device_count()
    if wanted is not None and not 1 <= wanted <= local:
        hint = " (as many CPU devices as you like: JAX_NUM_CPU_DEVICES)" if jax.default_backend() == "cpu" else ""
        raise UsageError(f"--devices must be from 1 to {local}, the devices of a process{hint}; got {wanted}")
    processes = range(jax.process_count())
    chosen = [d for process in processes for d in [d for d in jax.devices() if d.process_index == process][:wanted]]
    if len(chosen) == 1:
        return ONE
    return Devices(jax.make_mesh((len(chosen),), (AXIS,), devices=chosen, axis_types=(AxisType.Auto,)))


def check_batch(batch_size: int, examples: int, devices: int, processes: int = 1) -> None:
    """Raise a UsageError, which names alternatives, if a batch is not divisible among the devices.

    Example:
        >>> check_batch(64, 1000, devices=6)
        Traceback (most recent call last):
        train.host.errors.UsageError: --batch-size 64 is not divisible among 6 devices: take --batch-size 60 or 66, ...

    """
    if batch_size % devices == 0:
        return
    below = batch_size // devices * devices
    sizes = [f"{size}" for size in (below, below + devices) if 2 <= size <= examples]
    each = math.gcd(batch_size, processes) == processes and max(
        n for n in range(1, devices // processes + 1) if batch_size % (n * processes) == 0
    )
    of_each = " (of each process)" if processes > 1 else ""
    ways = [f"--batch-size {' or '.join(sizes)}"] if sizes else []
    ways += [f"--devices {each}{of_each}"] if each else []
    raise UsageError(f"--batch-size {batch_size} is not divisible among {devices} devices: take {', or '.join(ways)}")


def share(batch_size: int, devices: int, ghost: int | None) -> int:
    """The number of examples that each device normalizes by itself under `--norm-scope device`.

    Raises:
        UsageError: there are too few, or another number was requested.

    """
    own = batch_size // devices
    if ghost is not None and ghost != own:
        raise UsageError(
            f"--norm-scope device normalises the {own} examples of each of {devices} devices for themselves, and "
            f"--norm-ghost-batch every {ghost}: leave one of them out"
        )
    if own < 2:
        raise UsageError(
            f"--norm-scope device needs at least 2 examples on each device; a batch of {batch_size} has {own} on each "
            f"of {devices}: take a larger --batch-size, or fewer --devices"
        )
    return own
