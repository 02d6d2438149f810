"""The command line of `python -m train`."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import tyro

from train.config import PRESETS, Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains as the command line says; returns the exit code: 0, or 1 after an error that was printed."""
    config = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("train").setLevel(logging.INFO)  # long preparations say what they do
    try:
        train(config)
    except (OSError, FloatingPointError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: no network is written", file=sys.stderr)
        return 130
    return 0


class UsageError(Exception):
    """The options, or the data that they name, cannot be trained with."""


def parse(arguments: Sequence[str]) -> Config:
    """The configuration that the arguments describe, beginning at the preset that they name."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", nargs="?", default="default")
    preset = finder.parse_known_args(arguments)[0].preset
    return tyro.cli(
        Config,
        args=arguments,
        default=PRESETS.get(preset, Config()),  # tyro itself refuses a preset that there is not
        prog="python -m train",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def train(config: Config) -> None:
    """One run, from its configuration to its results."""
    # Slow to import, and not needed for --help.
    from rich.console import Console

    from train import loop, results, terminal
    from train.data import MnistUnavailableError, load
    from train.step import prepare
    from train.summary import summarize

    console = Console()
    try:
        run = config.run
        if run.name is not None:  # before the data is fetched
            results.check_folder(run.runs_dir, run.name, run.overwrite)
        dataset = load(config.data.dataset, data_dir=config.data.data_dir)
        run = replace(run, name=run.name or default_name(dataset.name))
        folder = results.check_folder(run.runs_dir, str(run.name), run.overwrite)
        plan = loop.make_plan(config, dataset)
        state = loop.initial_state(plan)
    except (ValueError, MnistUnavailableError) as error:
        raise UsageError(error) from error
    results.make_folder(folder)
    results.write_config(folder, replace(config, run=run))
    layers = summarize(
        plan.model, {"params": state.params, "batch_stats": state.batch_stats}, prepare(plan.test.inputs)
    )
    terminal.print_start(console, config, dataset, plan, layers)

    programs = loop.compile_programs(plan, state)
    progress: list[loop.Progress] = []
    epochs: list[loop.Epoch] = []
    with terminal.Monitor(console, plan) as monitor:
        for event, state in loop.run(plan, programs, state):  # noqa: B020, B007 (the last state is the result)
            if isinstance(event, loop.Progress):
                progress.append(event)
                monitor.advance(event)
            else:
                epochs.append(event)
                monitor.epoch(event)
                results.append_metrics(folder, event, dataset)
    results.write_variables(folder, state)
    results.write_curves(folder, progress, epochs, dataset)
    terminal.print_end(console, epochs[-1], dataset, programs.seconds, str(folder))


def default_name(dataset: str) -> str:
    """A name that says what and when."""
    return f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
