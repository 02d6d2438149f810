"""The options of all commands except `train` (see `train.config`), in a module that is fast to import for --help."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from train.config.sections import RunConfig
from train.studies.names import StudyName


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """A run and one of its checkpoints."""

    run: tyro.conf.Positional[Path]
    """Folder (or name) of the run."""
    checkpoint: Literal["newest", "best"] = "newest"
    """best: the checkpoint of the highest validation accuracy."""
    runs_dir: Path = RunConfig.runs_dir
    """Folder that holds one folder per run."""


@dataclasses.dataclass(frozen=True)
class RunAndDataOptions(RunOptions):
    """A run, one of its checkpoints, and its data."""

    data_dir: Path | None = None
    """Folder with the data's files. none: as in the run."""


@dataclasses.dataclass(frozen=True)
class Evaluate(RunAndDataOptions):
    """Measure the network of a run on the test set and the validation set."""


@dataclasses.dataclass(frozen=True)
class Export(RunOptions):
    """Write the network of a run, with its norms folded away, to one file for `predict` or any program with JAX."""

    output: Path | None = None
    """The file. none: network.jaxbn in the run's folder."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Classify image files, with probabilities, by the network of a run or an exported network."""

    network: tyro.conf.Positional[Path]
    """Folder (or name) of a run, or a file from `export`."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files (PNG, JPEG, ...) of any size, folders of them, pipes, or - for the standard input. For a network of
    digits, the digit is found, cropped, scaled and centred as in MNIST, whether it is dark on light or light on dark.
    Other images are scaled to fit. A network of grey images gets the luminance of colours."""
    as_is: bool = False
    """Only scale the images to fit: do not look for a digit, and assume light on dark."""
    invert: bool = False
    """Assume dark on light, like ink on paper, whatever the images look like."""
    top: int = 3
    """Number of classes listed per image, the most probable first."""
    runs_dir: Path = RunConfig.runs_dir
    """Folder that holds one folder per run."""


@dataclasses.dataclass(frozen=True)
class Report(RunAndDataOptions):
    """Write pictures and report.html, one page with everything about a run, to the run's folder."""


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """Test claims about batch normalization by training with and without it, over several seeds."""

    name: Annotated[StudyName, tyro.conf.Positional]
    """The study of one claim, or all studies."""
    full: bool = False
    """Confirm: longer training, and ten seeds that no quick run has used; up to an hour per study. The quick form
    explores, in about a minute per study."""
    data_dir: Path | None = None
    """Folder with the four MNIST files in IDX form; without it, scikit-learn's digits."""
    output: Path = Path("runs/studies")
    """Folder for the results: NAME, or NAME-full, with results.json and figure.png; earlier results are replaced."""
    docs: Path | None = None
    """Write the page studies.md and its figures to this folder, from all results in --output."""


@dataclasses.dataclass(frozen=True)
class Presets:
    """List the presets with their results, and the options in which they differ from the default."""
