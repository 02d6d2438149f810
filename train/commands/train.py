"""`python -m train`: one run, from its configuration to its results; also one that was stopped, to its end."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import jax

from train.config import config_file
from train.config.sections import Config, RunConfig
from train.data import Dataset, DatasetUnavailableError, load
from train.data.card import DataCard, describe
from train.host import encoding
from train.host.console import Console
from train.host.errors import StoppedAtOnceError, UsageError
from train.host.interruption import Interruption
from train.network.summary import summarize
from train.runs import checkpoint, results, stopping, terminal
from train.runs.identity import Identity, check_resumed, identify, write_initial
from train.runs.learning import Start, learn
from train.runs.restored import Restored
from train.training import devices, loop, processes
from train.training.plan import Plan, make_plan, resolve
from train.training.step import TrainState, prepare

_log = logging.getLogger(__name__)


def train(config: Config) -> None:
    """One run, from its configuration to its results; where several processes train together, this one's part."""
    with processes.connected(config.devices), processes.together():
        if not processes.first():
            logging.getLogger("train").setLevel(logging.ERROR)  # what happens is said once
        begin(config)
        processes.exchange()  # until everything is written


def begin(config: Config) -> None:
    """Finds the data, the network and the folder; then the run itself."""
    console = Console(quiet=not processes.first())
    try:
        check(config.run, config.data.validation)
        folder = find_folder(config.run)
        if config.run.resume is not None and folder is not None:
            check_resumed(config, config_file.read_run(folder))
        dataset = load(config.data.dataset, data_dir=config.data.data_dir)
        data = functools.cache(functools.partial(describe, dataset))
        if processes.several():
            processes.agree("the options or the data", fingerprint(config, data()))
        chosen = devices.choose(config.devices.devices)
        config = resolve(config, dataset, chosen)
        plan = make_plan(config, dataset, chosen)
        folder = folder or check_folder(config.run, default_name(dataset.name))
        program, example = loop.initializer(plan), plan.devices.put(dataset.train_inputs[:1])
        shapes = program.eval_shape(example)  # raises where the norm's options do not fit
        initial = functools.partial(program, example)
    except (ValueError, DatasetUnavailableError) as error:
        raise UsageError(error) from error
    with results.claim(folder) if processes.first() else contextlib.nullcontext():
        if config.run.resume is not None:
            start = resume(folder, initial, shapes, data, identify(folder, config))
            start = start._replace(state=plan.devices.put(start.state))
        else:
            if processes.first():
                check_folder(config.run, folder.name)  # again: another run may have ended there meanwhile
                results.clear(folder)
            start = Start(initial(), loop.Position(), [], [])
        if processes.several():
            processes.agree("the checkpoint or the initial parameters", checkpoint.digest(start.state))
        config = dataclasses.replace(
            config, run=dataclasses.replace(config.run, runs_dir=folder.parent, name=folder.name)
        )
        if processes.first():
            config_file.write_run(folder, config)
            if start.saved is None:
                write_initial(folder, checkpoint.digest(start.state))
        try:
            run(console, config, dataset, plan, folder, start, data)
        except OSError as error:
            raise UsageError(f"{error}. What was saved before stays. {stopping.to_go_on(folder)}") from error


def fingerprint(config: Config, data: DataCard) -> str:
    """What must be the same in all processes that train together."""
    learning = (config.data.validation, config.model, config.norm, config.optimizer, config.run.seed)
    going_on = (config.run.patience, config.run.resume is None, config.devices.devices)
    return hashlib.sha256(repr((learning, going_on, data)).encode()).hexdigest()


def find_folder(options: RunConfig) -> Path | None:
    """The folder of the run, found to be free or to be resumed; None where its name will come from the dataset's.

    Raises:
        ValueError: the name is none, or not that of the run to resume.
        FileExistsError: the folder holds what must not be replaced.

    """
    if options.resume is None:
        return None if options.name is None else check_folder(options, options.name)
    folder = config_file.find_run(options.resume, options.runs_dir)
    if options.name is None or options.runs_dir / options.name != folder:
        raise ValueError(f"a resumed run stays in its folder, {folder}: leave out --name and --runs-dir")
    return folder


def check_folder(options: RunConfig, name: str) -> Path:
    """The folder of a new run, found to be free by the process that writes there, whose files others may see."""
    if not processes.first():
        return options.runs_dir / name
    return results.check_folder(options.runs_dir, name, options.overwrite and name == options.name)


def run(
    console: Console,
    config: Config,
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    start: Start,
    data: Callable[[], DataCard],
) -> None:
    """Trains from the start to the end, or until it is told to stop, and writes everything that a run leaves."""
    variables = {"params": start.state.params, "batch_stats": start.state.batch_stats}
    layers = summarize(plan.model, variables, jax.eval_shape(prepare, dataset.test_inputs[:1]))
    terminal.print_start(console, config, dataset, plan, layers)
    own = identify(folder, config)
    with Interruption(stopping.answerer(console), stopping.ender(console, folder)) as interruption:
        try:
            trained = learn(console, config.run, dataset, plan, folder, start, data, own, interruption)
        except KeyboardInterrupt:
            raise StoppedAtOnceError(stopping.at_once(folder), interruption.code) from None
        progress, epochs, state = trained.progress, trained.epochs, trained.state
        if processes.first():
            results.write_variables(folder, state)
            if epochs:  # else their records were damaged, and that has been reported
                from train.report import curves

                curves.write(folder / results.CURVES, dataset.name, progress, epochs, plan.steps_per_epoch)
    if processes.first():
        if not config.run.no_report:
            restored = Restored(folder, config, plan.model, plan.devices.fetch(state), data())
            report(console, restored, dataset, interruption)
        if epochs and epochs[-1].step == int(state.step):  # the last record is not among the damaged ones
            terminal.print_end(console, epochs, plan, dataset, trained.compile_seconds, folder)


def report(console: Console, run: Restored, dataset: Dataset, interruption: Interruption) -> None:
    """Writes the report.

    Raises:
        StoppedAtOnceError: the user does not wait for it.

    """
    from train.report.page import write_report

    try:
        if interruption.signal and not processes.several():  # it came too late to stop anything else
            raise KeyboardInterrupt
        with console.status("drawing the pictures of the report"):
            write_report(run, dataset)
    except KeyboardInterrupt:
        raise StoppedAtOnceError(stopping.before_the_report(run.folder), interruption.code) from None


def resume(
    folder: Path, initial: Callable[[], TrainState], shapes: TrainState, data: Callable[[], DataCard], own: Identity
) -> Start:
    """Where a stopped run goes on: at its newest sound checkpoint, or at the beginning if it never came to one.

    Raises:
        UsageError: no checkpoint is sound, or the data are not those that the run began with.

    """
    try:
        found = checkpoint.newest(folder / results.CHECKPOINTS, shapes, own)
    except checkpoint.NoCheckpointError as error:
        raise UsageError(f"{error}. To begin anew: --overwrite --name {folder.name}") from error
    if found is None:
        _log.warning("%s has no checkpoint yet: it begins anew", folder)
        position, state = loop.Position(), initial()
    else:
        if found.data != data():
            raise UsageError(
                f"the data are not those that {folder} began with: pass the same --data-dir as then, or begin a new run"
            )
        position, state = found.position, found.state
    progress, epochs = results.rewind(folder, int(state.step), position.epoch, remove=processes.first())
    return Start(state, position, progress, epochs)


def check(options: RunConfig, validation: float) -> None:
    """Raises a ValueError where an option of the run is out of its range."""
    for option, value in (("name", options.name), ("runs-dir", options.runs_dir)):
        if value is not None and not encoding.is_text(str(value)):
            raise ValueError(
                f"--{option} must be text in UTF-8; got {str(value)!r}: checkpoints cannot be written there"
            )
    minutes, epochs = options.checkpoint_minutes, options.checkpoint_epochs
    if minutes is not None and not minutes >= 0:
        raise ValueError(f"--checkpoint-minutes must be at least 0; got {minutes:g}")
    if epochs is not None and epochs < 1:
        raise ValueError(f"--checkpoint-epochs must be at least 1; got {epochs}")
    if options.keep_checkpoints < 1:
        raise ValueError(f"--keep-checkpoints must be at least 1; got {options.keep_checkpoints}")
    if options.patience is not None and options.patience < 1:
        raise ValueError(f"--patience must be at least 1; got {options.patience}")
    if options.patience is not None and not validation:
        raise ValueError("--patience goes by the validation accuracy: hold something out, as with --validation 0.1")
    if options.resume is not None and options.overwrite:
        raise ValueError("--resume goes on with a run and --overwrite replaces it: pass one of them")


def default_name(dataset: str) -> str:
    """A name that says what and when."""
    return f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
