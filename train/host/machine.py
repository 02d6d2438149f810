"""The device, the system and the software versions."""

import os
import platform
from importlib.metadata import version

import jax

import jaxbn
from train.host import words


def usable_processors() -> int:
    """The number of processors that this process may use: `taskset`, for example, may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processors() -> str:
    """The number of processors, to follow the name of the device, if JAX computes on the CPU; otherwise nothing."""
    if jax.devices()[0].platform != "cpu":
        return ""
    return f", {words.count(usable_processors(), 'processor')}"


def versions(*libraries: str) -> dict[str, str]:
    """The versions of Python, jaxbn and some libraries, by name."""
    found = {"python": platform.python_version(), "jaxbn": jaxbn.__version__}
    return found | {name: version(name) for name in libraries}


def environment() -> dict[str, str]:
    """Device, system and versions, by name.

    Example:
        >>> list(environment())
        ['device', 'system', 'python', 'jaxbn', 'jax', 'jaxlib', 'flax', 'optax', 'numpy']

    """
    devices = jax.devices()
    several = f", {len(devices)} of them" if len(devices) > 1 else ""
    return {
        "device": f"{devices[0].device_kind}{several}{processors()}",
        "system": f"{platform.system()} {platform.machine()}",
        **versions("jax", "jaxlib", "flax", "optax", "numpy"),
    }
