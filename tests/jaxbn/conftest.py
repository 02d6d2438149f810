"""What holds for every test of the library: nothing in it leans on implicit promotion, of types or of ranks."""

import jax
import pytest
from hypothesis import settings

settings.register_profile("jaxbn", max_examples=50, derandomize=True, deadline=None, database=None)
settings.load_profile("jaxbn")


@pytest.fixture(autouse=True)
def strict():
    """Implicit promotion is an error; a module that compares with Flax, which relies on it, overrides this."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
