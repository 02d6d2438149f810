"""Checks of a configuration that need no data, so that invalid options are refused before anything is loaded."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from train.config.options import text
from train.config.sections import Config, ModelConfig
from train.host import encoding
from train.host.errors import UsageError

WIDEST = 1_000_000  # features of a layer: a thousand times those of usual networks


class Range(NamedTuple):
    """The values that an option may have."""

    words: str
    holds: Callable[[Any], bool]


COUNT = Range("at least 1", lambda value: value >= 1)
SHARE = Range("at least 0 and below 1", lambda value: 0 <= value < 1)
POSITIVE = Range("positive and finite", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Range("at least 0 and finite", lambda value: 0 <= value < math.inf)
WIDTHS = Range(f"numbers from 1 to {WIDEST:,}", lambda value: value and min(value) >= 1 and max(value) <= WIDEST)
NAME = Range(
    "the name of a folder, without separators", lambda value: value == Path(value).name and value not in ("", "..")
)
RANGES = {  # by the name of the option; None is always valid
    "validation": SHARE,
    "channels": WIDTHS,
    "hidden": WIDTHS,
    "pool_every": COUNT,
    "crop": Range("at least 0", lambda value: value >= 0),
    "shift": Range("at least 0", lambda value: value >= 0),
    "activation": Range("one name or more", bool),
    "dropout": SHARE,
    "kernel_std": NOT_NEGATIVE,
    "norm_ghost_batch": Range("at least 2", lambda value: value >= 2),
    "epochs": POSITIVE,
    "batch_size": Range("at least 2: batch normalization needs more than one value", lambda value: value >= 2),
    "learning_rate": POSITIVE,
    "warmup": SHARE,
    "sgd_momentum": SHARE,
    "adam_epsilon": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "clip_norm": POSITIVE,
    "clip_value": POSITIVE,
    "label_smoothing": SHARE,
    "name": NAME,
    "seed": Range(f"from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32),
    "checkpoint_minutes": Range("at least 0", lambda value: value >= 0),
    "checkpoint_epochs": COUNT,
    "keep_checkpoints": COUNT,
    "patience": COUNT,
}


def check(config: Config) -> None:
    """Refuse options that are out of range, or contradict each other whatever the data are.

    Raises:
        UsageError: an option is invalid.

    """
    for section in (config.data, config.model, config.norm, config.optimizer, config.run):
        for name, value in vars(section).items():
            allowed = RANGES.get(name)
            if allowed and value is not None and not allowed.holds(value):
                shown = repr(value) if isinstance(value, str) else text(value) or "none"
                raise UsageError(f"--{name.replace('_', '-')} must be {allowed.words}; got {shown}")
    for option, path in (("runs-dir", config.run.runs_dir), ("name", config.run.name or "")):
        if not encoding.is_text(str(path)):
            raise UsageError(
                f"--{option} must be text in UTF-8; got {str(path)!r}: checkpoints cannot be written there"
            )
    if config.run.patience is not None and not config.data.validation:
        raise UsageError("--patience needs the validation accuracy: hold out examples, as with --validation 0.1")
    if config.run.resume is not None and config.run.overwrite:
        raise UsageError("--resume continues a run and --overwrite replaces it: pass only one of them")
    if config.optimizer.batch_size is not None:
        check_ghost_batch(config.norm.norm_ghost_batch, config.optimizer.batch_size)
    if config.model.network != "auto":
        check_network(config.model, config.model.network)


def check_ghost_batch(ghost: int | None, batch_size: int) -> None:
    """Raise a UsageError if ghost batches do not divide the batch."""
    if ghost is not None and batch_size % ghost:
        raise UsageError(f"--norm-ghost-batch must divide the batch of {batch_size}; got {ghost}")


def check_network(options: ModelConfig, network: str) -> None:
    """Raise a UsageError if an option does not apply to the kind of network, "cnn" or "mlp"."""
    if network == "cnn" and options.hidden is not None and len(options.hidden) != 1:
        raise UsageError(f"--hidden of a cnn must be one number, as in --hidden 256; got {text(options.hidden)}")
    if network == "mlp":
        for name in ("channels", "pool_every", "padding"):
            if getattr(options, name) != getattr(ModelConfig, name):
                option = name.replace("_", "-")
                raise UsageError(
                    f"--{option} applies to a cnn, and this is an mlp: leave it out, or pass --network cnn"
                )
