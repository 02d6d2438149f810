"""The options of every command but `train`, whose are in `train.config`: light to import, so that --help is quick."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from train.config.sections import RunConfig
from train.studies.names import StudyName


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Which run, and which of its checkpoints."""

    run: tyro.conf.Positional[Path]
    """Folder (or name) of the run."""
    checkpoint: Literal["newest", "best"] = "newest"
    """best: that of the highest validation accuracy."""
    runs_dir: Path = RunConfig.runs_dir
    """Folder that holds one folder per run."""


@dataclasses.dataclass(frozen=True)
class RunAndDataOptions(RunOptions):
    """The same, and where its data are."""

    data_dir: Path | None = None
    """Folder with the data's files; none: as in the run."""


@dataclasses.dataclass(frozen=True)
class Evaluate(RunAndDataOptions):
    """Measures the network of a run on the test set, and on what it held out."""


@dataclasses.dataclass(frozen=True)
class Export(RunOptions):
    """Writes the network of a run to one file, its norms folded away, for `predict` and for any program with JAX."""

    output: Path | None = None
    """The file; None: network.jaxbn in the run's folder."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Says what image files show, with probabilities: by the network of a run, or an exported one."""

    network: tyro.conf.Positional[Path]
    """Folder (or name) of a run, or a file from `export`."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files (PNG, JPEG, ...) of any size, folders of them, pipes, or - for the standard input. For a network of
    digits, the digit is found, cropped, scaled and centred as in MNIST, whether it is dark on light or light on dark.
    Other images are scaled to fit. A network of grey images is given the luminance of colours."""
    as_is: bool = False
    """Only scale the images to fit: do not look for a digit, nor for the polarity, which is light on dark then."""
    invert: bool = False
    """The images are dark on light, as ink on paper is, even where that is not what they look like."""
    top: int = 3
    """How many classes are listed for an image, the most probable first."""
    runs_dir: Path = RunConfig.runs_dir
    """Folder that holds one folder a run."""


@dataclasses.dataclass(frozen=True)
class Report(RunAndDataOptions):
    """Writes pictures and report.html, one page with everything about a run, to the run's folder."""


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """Puts claims about batch normalization to the test: with norm and without, over several seeds."""

    name: Annotated[StudyName, tyro.conf.Positional]
    """Which claim, or all of them."""
    full: bool = False
    """The sources' own sizes, or many more seeds: hours on a CPU. The quick form takes about a minute a study."""
    data_dir: Path | None = None
    """Folder with the four MNIST files in IDX form; without it, scikit-learn's digits."""
    output: Path = Path("runs/studies")
    """Folder that gets a folder a study, with results.json and figure.png; what is there of the same study is
    replaced."""
    docs: Path | None = None
    """Write the page studies.md, and its figures, into this folder, from all results in --output."""


@dataclasses.dataclass(frozen=True)
class Presets:
    """Lists the presets, what to expect of them, and in which options they differ from the default."""
