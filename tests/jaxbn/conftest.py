"""The setting of all tests of the library: implicit promotion of types or of ranks is an error."""

import jax
import pytest
from hypothesis import settings

settings.register_profile("jaxbn", max_examples=50, derandomize=True, deadline=None, database=None)
settings.load_profile("jaxbn")


@pytest.fixture(autouse=True)
def strict():
    """Implicit promotion is an error; test modules that compare with Flax, which relies on it, override this."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
