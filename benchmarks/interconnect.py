"""A model of the time of an all-reduce on a machine that is not available, with its assumptions.

Devices are connected in levels: the dimensions of a torus, or the GPUs of a machine and then the machines. Bytes b are
reduced level by level, each level with 1/k of what the one before it, of k devices, had (reduce-scatter inwards,
all-gather outwards, as NCCL and XLA do for large arrays). On a level of k devices that takes

    2 · (k − 1)/k · b / bandwidth  +  2 · steps · latency

with k − 1 steps around a ring, and log₂ k through a switch (trees and halving, as for small arrays).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """Devices, or groups of devices, that are connected in the same way.

    Attributes:
        bandwidth: bytes per second that a device sends, and at the same time receives.
        latency: seconds per step.
        switched: True for a switch, False for a ring.

    """

    bandwidth: float
    latency: float
    switched: bool

    def seconds(self, size: int, count: int) -> float:
        """The seconds to reduce a number of bytes over a number of members."""
        steps = math.ceil(math.log2(count)) if self.switched else count - 1
        return 2 * (count - 1) / count * size / self.bandwidth + 2 * steps * self.latency


@dataclass(frozen=True)
class Machine:
    """Levels, from the innermost, and the number of devices on each for a total number.

    Attributes:
        agreements: whether the devices agree by a byte that a norm's guess was good (not on GPUs, which take one pass).

    """

    name: str
    levels: tuple[Level, ...]
    shapes: dict[int, tuple[int, ...]]
    agreements: bool = True

    def all_reduce(self, size: int, devices: int) -> float:
        """The seconds of an all-reduce of this many bytes."""
        total = 0.0
        for level, count in zip(self.levels, self.shapes[devices], strict=True):
            if count > 1:
                total += level.seconds(size, count)
            size = math.ceil(size / count)
        return total

    def step(self, sizes: Sequence[int], devices: int) -> float:
        """The seconds of a step's all-reduces one after the other, none hidden behind computation."""
        return sum(self.all_reduce(size, devices) for size in sizes if size > 1 or self.agreements)


# Bandwidths from the vendors' data sheets; latencies are assumptions of the usual size.
_NVLINK = Level(450e9, 2e-6, switched=True)  # H100, NVLink 4: 900 GB/s, both directions together
_INFINIBAND = Level(50e9, 5e-6, switched=True)  # one NDR adapter of 400 Gb/s for each GPU
_TORUS = Level(200e9, 1e-6, switched=False)  # TPU v5p: 4,800 Gb/s over six links: two of 100 GB/s in each dimension
MACHINES = (
    Machine(
        "H100, 8 a machine, InfiniBand", (_NVLINK, _INFINIBAND), {8: (8, 1), 64: (8, 8), 512: (8, 64)}, agreements=False
    ),
    Machine("TPU v5p, 3-D torus", (_TORUS,) * 3, {8: (2, 2, 2), 64: (4, 4, 4), 512: (8, 8, 8)}),
)
