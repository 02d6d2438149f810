"""The cache folder of this program, for prepared data and compiled programs."""

import os
from pathlib import Path


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/jaxbn`, or `~/.cache/jaxbn` where the variable is unset or relative."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "jaxbn"
