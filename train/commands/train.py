"""`python -m train`: a run, from its options to its results."""

import dataclasses
import functools
import hashlib
import logging
import time

import jax

from train.commands import resume
from train.config import config_file
from train.config.checks import check
from train.config.options import listed
from train.config.sections import Config
from train.data import Dataset, load
from train.host.console import Console, say
from train.host.errors import StoppedAtOnceError, UsageError
from train.host.interruption import Interruption
from train.network.build import check_norm
from train.network.summary import summarize
from train.runs import checkpoint, results, stopping, terminal
from train.runs.learning import Trained, learn
from train.runs.operations import operations
from train.runs.restored import Restored
from train.runs.run import Run, Start
from train.runs.writer import Silent, Writer
from train.training import devices, loop, processes
from train.training.plan import make_plan, resolve
from train.training.step import TrainState, prepare


def train(config: Config) -> None:
    """Carry out a run, or the part of this process if several train together."""
    with processes.connected(config.devices), processes.together():
        if not processes.first():
            logging.getLogger("train").setLevel(logging.ERROR)  # only the first process logs
        run = make_run(config)
        with run.writer.claim():
            start = begin(run)
            try:
                carry_out(run, start)
            except OSError as error:
                raise UsageError(
                    f"{error}. Everything saved before is kept. {stopping.to_go_on(run.folder)}"
                ) from error
        processes.exchange()  # until everything is written


def make_run(config: Config) -> Run:
    """Check the options and the folder, load the data and build the network.

    Raises:
        UsageError: the options are invalid, or the data are not available.
        OSError: the folder contains something that must not be replaced.

    """
    check(config)
    check_norm(config.norm)
    options, writer = config.run, Writer if processes.first() else Silent
    folder = None if options.name is None else options.runs_dir / options.name
    usual = Config()
    if options.resume is not None:
        folder = resume.find(config)
        usual = config_file.read_run(folder)
    elif folder is not None:
        writer(folder).check(overwrite=options.overwrite)
    chosen = devices.choose(config.devices.devices)
    given = tuple(option.name for option in listed(config, usual) if not option.usual)  # before others are filled in
    dataset = load(config.data.dataset, data_dir=config.data.data_dir)
    processes.agree("the options or the data", lambda: fingerprint(config, dataset))
    folder = folder or options.runs_dir / default_name(dataset.name)
    overwrite = options.overwrite and options.name is not None  # never another run that got its name in the same second
    options = dataclasses.replace(options, runs_dir=folder.parent, name=folder.name, overwrite=overwrite)
    config = dataclasses.replace(resolve(config, dataset, chosen), run=options)
    console = Console(quiet=not processes.first())
    return Run(config, dataset, make_plan(config, dataset, chosen), writer(folder), console, given)


def fingerprint(config: Config, dataset: Dataset) -> str:
    """The digest of everything that must agree in all processes that train together."""
    learning = (config.data.validation, config.model, config.norm, config.optimizer, config.run.seed)
    going_on = (config.run.patience, config.run.resume is None, config.devices.devices)
    return hashlib.sha256(repr((learning, going_on, dataset.card)).encode()).hexdigest()


def begin(run: Run) -> Start:
    """Return the initial or restored state of the run, and prepare its folder."""
    program, example = loop.initializer(run.plan), run.plan.devices.put(run.dataset.train_inputs[:1])
    initial = functools.partial(program, example)
    if run.config.run.resume is not None:
        start = resume.start(run, initial, program.eval_shape(example))
    else:
        run.writer.check(overwrite=run.config.run.overwrite)  # again: another run may have ended there meanwhile
        run.writer.clear()
        start = Start(initial())
    processes.agree("the checkpoint or the initial parameters", lambda: checkpoint.digest(start.state))
    run.writer.begin(run.config, start.state if start.saved is None else None, run.given)
    return start


def carry_out(run: Run, start: Start) -> None:
    """Train from the start to the end, or until told to stop, and write all files of the run."""
    inputs = jax.eval_shape(prepare, run.dataset.test_inputs[:1])
    layers = operations(run.config.model, summarize(run.plan.model, start.state.variables, inputs), inputs.shape[1:])
    terminal.print_start(run.console, run.config, run.dataset, run.plan, layers)
    answer = functools.partial(stopping.answer, run.console)
    with Interruption(answer, functools.partial(stopping.end, run.console, run.folder)) as interruption:
        try:
            trained = learn(run, start, interruption)
        except KeyboardInterrupt:
            raise StoppedAtOnceError(stopping.at_once(run.folder), interruption.code) from None
        run.writer.finish(trained.state)
        if processes.first():
            if trained.epochs and trained.epochs[-1].step == int(trained.state.step):  # its record is not damaged
                terminal.print_result(run.console, trained.epochs, run.plan, run.dataset, trained.compile_seconds)
            draw_curves(run, trained)
    if processes.first():
        if not run.config.run.no_report:
            report(run, trained.state, interruption)
        say(run.console, f"results in {run.folder}")


def draw_curves(run: Run, trained: Trained) -> None:
    """Write curves.png, unless all records were damaged, which has been reported."""
    from train.report import curves  # slow to import: training begins without it

    if trained.epochs:
        path, steps = run.folder / results.CURVES, run.plan.steps_per_epoch
        curves.write(path, run.dataset.name, trained.progress, trained.epochs, steps)


def report(run: Run, state: TrainState, interruption: Interruption) -> None:
    """Write the report.

    Raises:
        StoppedAtOnceError: the user stopped it.

    """
    from train.report.page import write_report

    restored = Restored(run.folder, run.config, run.plan.model, run.plan.devices.fetch(state), run.dataset.card)
    try:
        if interruption.signal and not processes.several():  # it came too late to stop anything else
            raise KeyboardInterrupt
        with run.console.status("drawing the pictures of the report"):
            write_report(restored, run.dataset)
    except KeyboardInterrupt:
        raise StoppedAtOnceError(stopping.before_the_report(run.folder), interruption.code) from None


def default_name(dataset: str) -> str:
    """The default name of a run: dataset and time."""
    return f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
