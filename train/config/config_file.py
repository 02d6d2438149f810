"""config.json: a configuration as a file, written atomically and read strictly."""

import dataclasses
import hashlib
import json
from pathlib import Path

from train.config.sections import Config
from train.host import files, typed
from train.host.errors import UsageError

NAME, DIGEST = "config.json", "config.sha256"


def to_json(config: Config) -> str:
    """Return every option as JSON that `read` accepts."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"


def read(path: Path) -> Config:
    """Read a configuration that `to_json` wrote; missing options get their defaults.

    Raises:
        UsageError: the file does not exist, is not JSON, or contains an unknown option or an invalid value.

    """
    try:
        values = typed.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no {path}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a configuration (JSON, like the config.json of a run): {error}") from error
    try:
        return typed.read(Config, values)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def write_run(folder: Path, config: Config) -> None:
    """Write config.json of a run, by which its checkpoints are read, and its SHA-256 beside it.

    If this is interrupted at any moment, a configuration exists, and never with the digest of another one.
    """
    content = to_json(config)
    (folder / DIGEST).unlink(missing_ok=True)
    files.write(folder / NAME, content)
    files.write(folder / DIGEST, _digest_line(content.encode()))


def read_run(folder: Path) -> Config:
    """Read the configuration of a run, which must be unchanged since the run wrote it.

    Raises:
        UsageError: it cannot be read, or has changed.

    """
    path = folder / NAME
    if (folder / DIGEST).exists():
        with files.naming(path, "read"):
            if (folder / DIGEST).read_bytes() != _digest_line(path.read_bytes()).encode():
                raise UsageError(
                    f"{path} has changed since the run wrote it ({DIGEST} no longer matches). Restore it; to train "
                    f"with other options, start a new run: --config {path}"
                )
    return read(path)


def _digest_line(content: bytes) -> str:
    """Return the digest as `sha256sum` prints it."""
    return f"{hashlib.sha256(content).hexdigest()}  {NAME}\n"


def find_run(run: Path, runs_dir: Path) -> Path:
    """Return the folder of a run, given that folder, or the name of the run in the folder of all runs.

    Raises:
        UsageError: there is no such run.

    """
    for folder in (run, runs_dir / run):
        if (folder / NAME).is_file():
            return folder
    if run.is_dir():
        raise UsageError(f"{run} is not the folder of a run: it has no {NAME}")
    raise UsageError(f"there is no run {run}, neither as a folder nor in {runs_dir}")
