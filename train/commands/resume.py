"""Resuming a stopped run."""

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
    """Return the folder of the run to resume, after checking that its options are unchanged.

    Raises:
        UsageError: the run does not exist, or an option has changed.

    """
    options = config.run
    assert options.resume is not None
    folder = config_file.find_run(options.resume, options.runs_dir)
    if options.name is None or options.runs_dir / options.name != folder:
        raise UsageError(f"a resumed run stays in its folder, {folder}: leave out --name and --runs-dir")
    check_resumed(config, config_file.read_run(folder))
    return folder


def start(run: Run, initial: Callable[[], TrainState], shapes: TrainState) -> Start:
    """Return the start of a resumed run: its newest intact checkpoint, or the beginning if it has no checkpoint.

    Raises:
        UsageError: no checkpoint is intact, or the data have changed.

    """
    folder = run.folder
    try:
        found = checkpoint.newest(folder / results.CHECKPOINTS, shapes, run.identify())
    except checkpoint.NoCheckpointError as error:
        raise UsageError(f"{error}. To start again: --overwrite --name {folder.name}") from error
    if found is None:
        _log.warning("%s has no checkpoint yet: it starts from the beginning", folder)
        position, state = Position(), initial()
    else:
        if found.data != run.dataset.card:
            raise UsageError(
                f"the data have changed since {folder} was started: pass the same --data-dir as at its start, or start "
                "a new run"
            )
        position, state = found.position, run.plan.devices.put(found.state)
    progress, epochs = run.writer.rewind(int(state.step), position.epoch)
    return Start(state, position, tuple(progress), tuple(epochs))
