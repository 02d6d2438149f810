"""What libraries log through absl, as Orbax and tensorflow-datasets do: their news, which is not the program's."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def only(level: int) -> Iterator[None]:
    """Keeps absl from logging anything below a level."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
