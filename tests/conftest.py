"""What holds for every test: eight CPU devices, so that what is said about many devices is tested on many."""

import ctypes
import gc
import tempfile
from collections.abc import Iterator

import jax
import psutil
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # before anything asks for a device

if jax.device_count("cpu") != 8:  # else every test of sharding would quietly run on one device
    raise RuntimeError(
        f"the tests need 8 CPU devices and got {jax.device_count('cpu')}: JAX was used before tests/conftest.py was "
        "loaded. Unset XLA_FLAGS and JAX_PLATFORMS, and make no array while a test module or plugin is imported"
    )

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

PROCESS, ROOM, GROWTH = psutil.Process(), 0.9e9, 0.2e9  # bytes
kept = [0.0]  # of the memory in use, what was left when it was last freed


def pytest_runtest_teardown() -> None:
    """Frees compiled programs where they take much memory: a process that keeps all grows beyond 4 GB."""
    if PROCESS.memory_info().rss > max(ROOM, kept[-1] + GROWTH):
        jax.clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps what is freed in small pieces
            trim(0)
        kept.append(PROCESS.memory_info().rss)


@pytest.fixture(scope="session", autouse=True)
def compiled_programs() -> Iterator[None]:
    """Keeps compiled programs in files, so that a program that was freed, or is made again, is compiled once."""
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        yield
        jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def x64():
    """Runs the test with 64-bit types enabled."""
    with jax.enable_x64(True):
        yield
