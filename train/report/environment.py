"""What a page was made with."""

import os
import platform
from importlib.metadata import version

import jax

import jaxbn

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


def environment() -> dict[str, str]:
    """Device, system and versions, by name.

    Example:
        >>> list(environment())
        ['device', 'system', 'python', 'jaxbn', 'jax', 'jaxlib', 'flax', 'optax', 'numpy']

    """
    devices = jax.devices()
    several = f", {len(devices)} of them" if len(devices) > 1 else ""
    processors = f", {os.cpu_count()} processors" if devices[0].platform == "cpu" else ""
    return {
        "device": f"{devices[0].device_kind}{several}{processors}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "jaxbn": jaxbn.__version__,
        **{name: version(name) for name in LIBRARIES},
    }
