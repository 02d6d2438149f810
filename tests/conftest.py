"""What holds for every test: eight CPU devices, so that what is said about many devices is tested on many."""

import gc
from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # before anything asks for a device

if jax.device_count("cpu") != 8:  # else every test of sharding would quietly run on one device
    raise RuntimeError(
        f"the tests need 8 CPU devices and got {jax.device_count('cpu')}: JAX was used before tests/conftest.py was "
        "loaded. Unset XLA_FLAGS and JAX_PLATFORMS, and make no array while a test module or plugin is imported"
    )


@pytest.fixture(scope="module", autouse=True)
def programs_of_a_module() -> Iterator[None]:
    """Frees what a module has compiled: a process that keeps all of it grows beyond 4 GB."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def x64():
    """Runs the test with 64-bit types enabled."""
    with jax.enable_x64(True):
        yield
