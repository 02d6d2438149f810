"""Restricting the log of absl, through which Orbax and tensorflow-datasets log."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def only(level: int) -> Iterator[None]:
    """A context in which absl logs nothing below a level."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
