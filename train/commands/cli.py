"""The command line of `python -m train`: which command it is, its options, and how it ends."""

import argparse
import contextlib
import dataclasses
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from train.commands import arguments as argument_parser
from train.commands import help
from train.commands.options import Evaluate, Export, Predict, Presets, Report, StudyOptions
from train.config import config_file
from train.config.sections import PRESETS, Config, DeviceConfig, RunConfig
from train.host import device_errors, encoding, packages
from train.host.errors import InterruptedRunError, StoppedAtOnceError, UsageError

PROGRAM = "python -m train"
HELP = {"--help", "-h"}

COMMANDS: dict[str, type] = {  # the options of each; its function has its name, in the module of its name
    "train": Config,
    "evaluate": Evaluate,
    "export": Export,
    "predict": Predict,
    "report": Report,
    "study": StudyOptions,
    "presets": Presets,
}
DEFAULT = "train"


def main(
    arguments: Sequence[str] | None = None,
    around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> int:
    """Does what the command line says, in the context `around`; returns the exit code.

    0; 1 after an error, which is printed in one line; 2 for unknown options and values; 130 after Ctrl-C and 143 after
    SIGTERM: a run that was training has saved where it was then, and says how to go on; 141, without a word, where
    nobody reads any more what is printed. Characters that the output's encoding lacks are replaced.
    """
    for stream in (sys.stdout, sys.stderr):
        encoding.tolerate(stream)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("train").setLevel(logging.INFO)  # long preparations say what they do
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it can do without a cache of its own
    try:
        run(sys.argv[1:] if arguments is None else arguments, around)
        sys.stdout.flush()  # while there is somebody to say that it fails
    except BrokenPipeError:  # whoever read what is printed has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its end
        return 141
    except (OSError, FloatingPointError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code if isinstance(error, UsageError) else 1
    except (ModuleNotFoundError, AssertionError, RuntimeError) as error:
        is_import = isinstance(error, ModuleNotFoundError)
        reason = packages.explain_import(error) if is_import else device_errors.explain(error)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 1
    except (InterruptedRunError, StoppedAtOnceError) as interruption:
        if str(interruption):  # of several processes one says it for all
            print(interruption, file=sys.stderr)
        return interruption.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run(arguments: Sequence[str], around: Callable[[], AbstractContextManager[None]]) -> None:
    """Does what the command line says."""
    command, rest = select(arguments)
    if rest == ["--version"]:
        print(versions())
    elif HELP & {*rest}:
        print(explain(command, rest))
    else:
        options = parse_options(command, rest)
        with around():
            getattr(importlib.import_module(f"train.commands.{command}"), command)(options)


def versions() -> str:
    """The versions of jaxbn and of what it runs on."""
    from train.host import machine  # imports jax, which is slow

    found = machine.versions("jax")
    return f"jaxbn {found['jaxbn']}, jax {found['jax']}, Python {found['python']}"


def select(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The command that is meant, and its arguments; without one, it is `train`.

    Raises:
        UsageError: there is no such command.

    """
    if not arguments or arguments[0].startswith("-"):
        return DEFAULT, arguments
    if arguments[0] in COMMANDS:
        return arguments[0], arguments[1:]
    perhaps = argument_parser.nearest(arguments[0], list(COMMANDS)) or "."
    raise argument_parser.ArgumentError(
        f"there is no command {arguments[0]!r}{perhaps} Commands are {', '.join(COMMANDS)}"
    )


def parse(arguments: Sequence[str]) -> Any:  # noqa: ANN401  (each command has its own)
    """The options that the arguments describe, whichever the command."""
    return parse_options(*select(arguments))


def parse_options(command: str, arguments: Sequence[str]) -> Any:  # noqa: ANN401
    """The options of a command."""
    if command != DEFAULT:
        return argument_parser.parse(COMMANDS[command], arguments, f"{PROGRAM} {command}")
    default = begin(arguments)
    # Where a flag may be on before, it can be given again, as when a command is repeated with --resume.
    pairs = default.run.resume is not None or default.run.config is not None
    return argument_parser.parse(Config, arguments, PROGRAM, default, pairs)


def explain(command: str, arguments: Sequence[str]) -> str:
    """What --help prints of a command; of `train` the commands and the options that people use first, or with all."""
    if command != DEFAULT:
        title = f"usage: {PROGRAM} {command} [OPTIONS]\n\n{help.wrap(summary(command))}"
        return f"{title}\n{help.render(help.sections(COMMANDS[command]))}"
    found = help.sections(Config, begin([word for word in arguments if word not in HELP]))
    if "all" not in arguments:
        found = help.first(found)
    commands = [help.wrap(f"  {name:<11}{summary(name)}", 13) for name in COMMANDS]
    usage = f"usage: {PROGRAM} [COMMAND] [OPTIONS]; without a command, it trains"
    more = "" if "all" in arguments else f"\n\n{PROGRAM} --help all lists all options, and COMMAND --help a command's"
    return "\n".join([usage, "", "commands:", *commands, help.render(found)]) + more


def summary(command: str) -> str:
    """What a command does, in a line."""
    return (COMMANDS[command].__doc__ or "").splitlines()[0]


def begin(arguments: Sequence[str]) -> Config:
    """The configuration that the other options begin with: that of a preset, of a file, or of a stopped run.

    Raises:
        UsageError: more than one of them is named, or the file cannot be read.

    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("preset", "config", "resume", "runs-dir"):
        finder.add_argument(f"--{name}", nargs="?")
    found = finder.parse_known_args(arguments)[0]
    named = [f"--{name}" for name in ("preset", "config", "resume") if getattr(found, name) is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} each say what the other options begin with: pass one of them")
    if found.config is not None:
        path = Path(found.config)
        config = config_file.read(path)
        # Not the folder: it holds the run that the file is of.
        run = dataclasses.replace(config.run, name=None, overwrite=False, config=path, resume=None)
        return dataclasses.replace(config, devices=_own(config.devices), run=run)
    if found.resume is not None:
        folder = config_file.find_run(Path(found.resume), Path(found.runs_dir or RunConfig.runs_dir))
        config = config_file.read_run(folder)
        run = dataclasses.replace(config.run, runs_dir=folder.parent, name=folder.name, overwrite=False, config=None)
        run = dataclasses.replace(run, resume=folder)
        return dataclasses.replace(config, devices=_own(config.devices), run=run)
    return PRESETS.get(found.preset or "default", Config())  # tyro itself refuses a preset that there is not


def _own(devices: DeviceConfig) -> DeviceConfig:
    """Without the other processes that there were: a run may go on, or be repeated, elsewhere."""
    return DeviceConfig(devices=devices.devices)
