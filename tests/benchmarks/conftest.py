"""The other libraries need JAX's default promotion rules, whatever other tests set."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def usual_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
