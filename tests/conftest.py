"""The setting of all tests: eight CPU devices, so that claims about several devices are tested on several."""

import ctypes
import gc
import tempfile
from collections.abc import Iterator

import jax
import psutil
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # before anything asks for a device

if jax.device_count("cpu") != 8:  # otherwise all tests of sharding would silently run on one device
    raise RuntimeError(
        f"the tests need 8 CPU devices and got {jax.device_count('cpu')}: JAX was used before tests/conftest.py was "
        "loaded. Unset XLA_FLAGS and JAX_PLATFORMS, and make no array while a test module or plugin is imported"
    )

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

PROCESS, ROOM, GROWTH = psutil.Process(), 0.9e9, 0.2e9  # bytes
kept = [0.0]  # the memory still in use after each time it was freed


def pytest_runtest_teardown() -> None:
    """Free compiled programs if they take much memory: a process that keeps all of them grows beyond 4 GB."""
    if PROCESS.memory_info().rss > max(ROOM, kept[-1] + GROWTH):
        jax.clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps what is freed in small pieces
            trim(0)
        kept.append(PROCESS.memory_info().rss)


@pytest.fixture(scope="session", autouse=True)
def compiled_programs() -> Iterator[None]:
    """Keep compiled programs in files, so that each is compiled once, even if it is freed or built again."""
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        yield
        jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def x64():
    """Run the test with 64-bit types enabled."""
    with jax.enable_x64(True):
        yield
