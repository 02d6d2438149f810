"""Going on with a run that was stopped."""

import logging
from collections.abc import Callable
from pathlib import Path

from train.config import config_file
from train.config.sections import Config
from train.host.errors import UsageError
from train.runs import checkpoint, results
from train.runs.identity import check_resumed
from train.runs.run import Run, Start
from train.training.loop import Position
from train.training.step import TrainState

_log = logging.getLogger(__name__)


def find(config: Config) -> Path:
    """The folder of the run to resume, whose options are those of the configuration.

    Raises:
        UsageError: there is no such run, or it would become another.

    """
    options = config.run
    assert options.resume is not None
    folder = config_file.find_run(options.resume, options.runs_dir)
    if options.name is None or options.runs_dir / options.name != folder:
        raise UsageError(f"a resumed run stays in its folder, {folder}: leave out --name and --runs-dir")
    check_resumed(config, config_file.read_run(folder))
    return folder


def start(run: Run, initial: Callable[[], TrainState], shapes: TrainState) -> Start:
    """Where a stopped run goes on: at its newest intact checkpoint, or at the beginning if it never came to one.

    Raises:
        UsageError: no checkpoint is intact, or the data are not those that the run began with.

    """
    folder = run.folder
    try:
        found = checkpoint.newest(folder / results.CHECKPOINTS, shapes, run.identify())
    except checkpoint.NoCheckpointError as error:
        raise UsageError(f"{error}. To begin anew: --overwrite --name {folder.name}") from error
    if found is None:
        _log.warning("%s has no checkpoint yet: it begins anew", folder)
        position, state = Position(), initial()
    else:
        if found.data != run.dataset.card:
            raise UsageError(
                f"the data are not those that {folder} began with: pass the same --data-dir as then, or begin a new run"
            )
        position, state = found.position, run.plan.devices.put(found.state)
    progress, epochs = run.writer.rewind(int(state.step), position.epoch)
    return Start(state, position, tuple(progress), tuple(epochs))
