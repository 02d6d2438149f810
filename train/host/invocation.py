"""How and when this process was started, and from which commit of the source."""

import datetime
import os
import shlex
import subprocess
import sys
from pathlib import Path

import train

ROOT = Path(train.__file__).parents[1]


def command_line() -> str:
    """The command line of this process, as it can be typed again."""
    program, *arguments = sys.orig_argv
    return shlex.join([Path(program).name, *arguments])


def now() -> str:
    """The local time to the second, with its offset from UTC."""
    return datetime.datetime.now().astimezone().isoformat(" ", timespec="seconds")


def commit(root: Path = ROOT) -> str | None:
    """The git commit of a source checkout, marked where files differ from it; None for an installed package."""
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--abbrev=12",
        "--exclude=*",
        "--dirty=, with local changes",
    ]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):  # there is no git here, or the checkout is very slow
        return None
    return found.stdout.strip() or None
