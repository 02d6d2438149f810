"""Fixtures that the tests of the studies share."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def quickly_compiled() -> Iterator[None]:
    """These programs run for less time than they compile."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
