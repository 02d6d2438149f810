"""The command line of `python -m train`: the command, its options, and the exit code."""

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

COMMANDS: dict[str, type] = {  # the options of each command, whose function and module have its name
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
    """Run the command line in the context `around`, and return the exit code.

    The code is 0; 1 after an error, which is printed in one line; 2 for unknown options and values; 130 after Ctrl-C
    and 143 after SIGTERM, when a run that was training has saved its state and printed how to continue; and 141,
    silently, when the reader of the pipe has gone. Characters that the output's encoding lacks are replaced.
    """
    for stream in (sys.stdout, sys.stderr):
        encoding.tolerate(stream)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("train").setLevel(logging.INFO)  # long preparations report what they do
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it works without a cache of its own
    try:
        run(sys.argv[1:] if arguments is None else arguments, around)
        sys.stdout.flush()  # here, where a failure can still be reported
    except BrokenPipeError:  # the reader of the pipe, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python complains again at its exit
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
        if str(interruption):  # of several processes only one prints it
            print(interruption, file=sys.stderr)
        return interruption.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run(arguments: Sequence[str], around: Callable[[], AbstractContextManager[None]]) -> None:
    """Run the command line."""
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
    """The versions of jaxbn, JAX and Python."""
    from train.host import machine  # imports jax, which is slow

    found = machine.versions("jax")
    return f"jaxbn {found['jaxbn']}, jax {found['jax']}, Python {found['python']}"


def select(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the command and its arguments; the default command is `train`.

    Raises:
        UsageError: the command does not exist.

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
    """Parse the options of any command."""
    return parse_options(*select(arguments))


def parse_options(command: str, arguments: Sequence[str]) -> Any:  # noqa: ANN401
    """Parse the options of a command."""
    if command != DEFAULT:
        return argument_parser.parse(COMMANDS[command], arguments, f"{PROGRAM} {command}")
    # Pairs, since a flag that is already on may be given again, as when a command is repeated with --resume.
    return argument_parser.parse(Config, arguments, PROGRAM, begin(arguments), pairs=True)


def explain(command: str, arguments: Sequence[str]) -> str:
    """The text of --help for a command; for `train` the commands and the most common options, or all options."""
    if command != DEFAULT:
        title = f"usage: {PROGRAM} {command} [OPTIONS]\n\n{help.wrap(summary(command))}"
        return f"{title}\n{help.render(help.sections(COMMANDS[command]))}"
    found = help.sections(Config, begin([word for word in arguments if word not in HELP]))
    if "all" not in arguments:
        found = help.first(found)
    commands = [help.wrap(f"  {name:<11}{summary(name)}", 13) for name in COMMANDS]
    usage = help.wrap(f"usage: {PROGRAM} [COMMAND] [OPTIONS]; the default command is {DEFAULT}", 7)
    hint = f"{PROGRAM} --help all lists all options; COMMAND --help lists those of a command"
    more = "" if "all" in arguments else f"\n\n{help.wrap(hint)}"
    return "\n".join([usage, "", "commands:", *commands, help.render(found)]) + more


def summary(command: str) -> str:
    """The summary of a command, in one line."""
    return (COMMANDS[command].__doc__ or "").splitlines()[0]


def begin(arguments: Sequence[str]) -> Config:
    """The starting values of all other options: those of a preset, of a file, or of a stopped run.

    Raises:
        UsageError: more than one of them is given, or the file cannot be read.

    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("preset", "config", "resume", "runs-dir"):
        finder.add_argument(f"--{name}", nargs="?")
    found = finder.parse_known_args(arguments)[0]
    named = [f"--{name}" for name in ("preset", "config", "resume") if getattr(found, name) is not None]
    if len(named) > 1:
        raise UsageError(
            f"{' and '.join(named)} each set the starting values of all other options: pass only one of them"
        )
    if found.config is not None:
        path = Path(found.config)
        config = config_file.read(path)
        # Without the folder, which holds the run that wrote the file.
        run = dataclasses.replace(config.run, name=None, overwrite=False, config=path, resume=None)
        return dataclasses.replace(config, devices=_own(config.devices), run=run)
    if found.resume is not None:
        folder = config_file.find_run(Path(found.resume), Path(found.runs_dir or RunConfig.runs_dir))
        config = config_file.read_run(folder)
        run = dataclasses.replace(config.run, runs_dir=folder.parent, name=folder.name, overwrite=False, config=None)
        run = dataclasses.replace(run, resume=folder)
        return dataclasses.replace(config, devices=_own(config.devices), run=run)
    return PRESETS.get(found.preset or "default", Config())  # tyro itself refuses an unknown preset


def _own(devices: DeviceConfig) -> DeviceConfig:
    """Drop the settings of other processes: a run may be resumed or repeated elsewhere."""
    return DeviceConfig(devices=devices.devices)
