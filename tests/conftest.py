"""What holds for every test: eight CPU devices, so that what is said about many devices is tested on many."""

import gc
import itertools
import tempfile
from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # before anything asks for a device

if jax.device_count("cpu") != 8:  # else every test of sharding would quietly run on one device
    raise RuntimeError(
        f"the tests need 8 CPU devices and got {jax.device_count('cpu')}: JAX was used before tests/conftest.py was "
        "loaded. Unset XLA_FLAGS and JAX_PLATFORMS, and make no array while a test module or plugin is imported"
    )

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

number = itertools.count(1)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Frees compiled programs, between modules and every 60 tests: a process that keeps all grows beyond 4 GB."""
    if next(number) % 60 == 0 or nextitem is None or nextitem.path != item.path:
        jax.clear_caches()
        gc.collect()


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
