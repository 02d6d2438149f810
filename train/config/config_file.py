"""config.json: a configuration as a file, written whole and read strictly."""

import dataclasses
import hashlib
import json
from pathlib import Path

from train.config.sections import Config
from train.host import files, typed
from train.host.errors import UsageError

NAME, DIGEST = "config.json", "config.sha256"


def to_json(config: Config) -> str:
    """Every option, as text that `read` takes."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"


def read(path: Path) -> Config:
    """The configuration in a file that `to_json` filled; options that it lacks have their defaults.

    Raises:
        UsageError: there is no such file, it is no JSON, or holds an option or a value that there is not.

    """
    try:
        values = typed.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no {path}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no configuration (JSON, as the config.json of a run): {error}") from error
    try:
        return typed.read(Config, values)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def write_run(folder: Path, config: Config) -> None:
    """config.json of a run, and its SHA-256 beside it: what the run's checkpoints are to be understood by.

    Whenever this is interrupted, there is a configuration, and no digest that is not its own.
    """
    content = to_json(config)
    (folder / DIGEST).unlink(missing_ok=True)
    files.write(folder / NAME, content)
    files.write(folder / DIGEST, _digest_line(content.encode()))


def read_run(folder: Path) -> Config:
    """The configuration of a run, which must be what the run has written.

    Raises:
        UsageError: it cannot be read, or is another one.

    """
    path = folder / NAME
    if (folder / DIGEST).exists():
        with files.naming(path, "read"):
            if (folder / DIGEST).read_bytes() != _digest_line(path.read_bytes()).encode():
                raise UsageError(
                    f"{path} is not what the run has written: damaged, or edited, as {DIGEST} beside it tells. "
                    f"Put it back as it was; to train with other options, begin a new run: --config {path}"
                )
    return read(path)


def _digest_line(content: bytes) -> str:
    """As `sha256sum` prints it."""
    return f"{hashlib.sha256(content).hexdigest()}  {NAME}\n"


def find_run(run: Path, runs_dir: Path) -> Path:
    """The folder of a run that is named by its folder, or by its name in the folder of all runs.

    Raises:
        UsageError: there is no such run.

    """
    for folder in (run, runs_dir / run):
        if (folder / NAME).is_file():
            return folder
    if run.is_dir():
        raise UsageError(f"{run} is no folder of a run: it has no {NAME}")
    raise UsageError(f"there is no run {run}, neither as a folder nor in {runs_dir}")
