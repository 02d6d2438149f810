"""`python -m train predict RUN_OR_EXPORT IMAGE...`: what the images show, says the network."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tyro

from train.config import RunConfig
from train.errors import UsageError

if TYPE_CHECKING:  # slow to import, and not needed for --help
    import numpy as np

    from train.artifact import Description, Preprocessing
    from train.classify import Classifier
    from train.console import Console
    from train.images import Picture


@dataclasses.dataclass(frozen=True)
class Predict:
    """Says what image files show, with probabilities: by the network of a run, or an exported one."""

    network: tyro.conf.Positional[Path]
    """Folder (or name) of a run, or a file from `export`."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files (PNG, JPEG, ...), of any size; grey ones are given to a network of colour images as they are, and of
    colour ones a network of grey images is given the luminance."""
    invert: bool = False
    """The images are dark on light, as ink on paper is; else they are taken to be light on dark, as in MNIST."""
    top: int = 3
    """How many classes are listed for an image, the most probable first."""
    runs_dir: Path = RunConfig.runs_dir
    """Folder that holds one folder a run."""


class Prediction(NamedTuple):
    """The most probable classes of an image, the first one first."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(options: Predict) -> None:
    """Prints a table in a terminal, and elsewhere a line an image: file, class, probability, class, ... between tabs.

    What cannot be read is said on stderr, and the others are predicted.

    Raises:
        UsageError: the network cannot be used; or, at the end, some of the images could not.

    """
    from train.console import Console

    if options.top < 1:
        raise UsageError(f"--top must be at least 1; got {options.top}")
    if not options.images:
        raise UsageError("there is nothing to predict: name one or more image files")
    classifier = load(options.network, options.runs_dir)
    form = classifier.description.preprocessing
    if form is None:
        dataset, shape = classifier.description.dataset, "x".join(map(str, classifier.description.input_shape))
        raise UsageError(f"{classifier.name} has learned from {dataset}: it takes {shape} numbers, no images")
    print(_describe(classifier) + _assumption(form, options.invert), file=sys.stderr)
    pictures = _read(options.images, classifier.description, options.invert)
    show(Console(), classify(classifier, pictures, options.top))
    failed = len(options.images) - len(pictures)
    if failed:
        raise UsageError(f"{failed} of {len(options.images)} could not be read")


def load(network: Path, runs_dir: Path) -> "Classifier":
    """The network of an exported file, or of a run.

    Raises:
        UsageError: it is neither, or damaged.

    """
    from train import classify, restored

    if network.is_file():
        return classify.of_file(network)
    if not network.exists() and not (runs_dir / network).exists():
        raise UsageError(
            f"there is no {network}: neither a file from `export`, nor a run, nor one of this name in {runs_dir}"
        )
    return classify.of_run(restored.restore(network, runs_dir))


def classify(classifier: "Classifier", pictures: Sequence[tuple[Path, "Picture"]], top: int) -> list[Prediction]:
    """The most probable classes of images."""
    import numpy as np

    if not pictures:
        return []
    probabilities = classifier.probabilities(np.stack([picture.pixels for _, picture in pictures]))
    names = classifier.description.class_names
    return [_prediction(path, row, names, top) for (path, _), row in zip(pictures, probabilities, strict=True)]


def show(console: "Console", predictions: Sequence[Prediction]) -> None:
    """A table in a terminal, lines anywhere else."""
    from rich.table import Table
    from rich.text import Text

    if not console.is_terminal:
        for path, classes, probabilities in predictions:
            pairs = (f"{name}\t{probability:.4f}" for name, probability in zip(classes, probabilities, strict=True))
            print(path, *pairs, sep="\t")
        return
    table = Table("image", "shows")
    table.add_column("probability", justify="right")
    table.add_column("or else")
    for path, classes, probabilities in predictions:
        others = zip(classes[1:], probabilities[1:], strict=True)
        table.add_row(
            Text(str(path), overflow="fold"),
            Text(classes[0], "bold"),
            f"{probabilities[0]:.2%}",
            Text(", ".join(f"{name} {probability:.2%}" for name, probability in others)),
        )
    if predictions:
        console.print(table)


def _read(paths: Sequence[Path], description: "Description", invert: bool) -> list[tuple[Path, "Picture"]]:
    """Those images that can be read; what is wrong with the others goes to stderr."""
    from train import images

    assert description.preprocessing is not None
    pictures = []
    for path in paths:
        try:
            picture = images.read(path, description.preprocessing, invert)
        except images.ImageError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        if picture.remark:
            print(f"note: {path}: {picture.remark}", file=sys.stderr)
        pictures.append((path, picture))
    return pictures


def _prediction(path: Path, row: "np.ndarray", names: Sequence[str], top: int) -> Prediction:
    best = sorted(range(len(names)), key=lambda i: -row[i])[:top]
    return Prediction(path, tuple(names[i] for i in best), tuple(float(row[i]) for i in best))


def _assumption(form: "Preprocessing", invert: bool) -> str:
    if form.polarity is None:
        return "; images are inverted (--invert)" if invert else ""
    return f"; images are taken to be {'dark on light (--invert)' if invert else f'{form.polarity} (else: --invert)'}"


def _describe(classifier: "Classifier") -> str:
    description = classifier.description
    accuracy = "" if description.test_accuracy is None else f", test accuracy {description.test_accuracy:.2%}"
    return f"{classifier.name}: {description.dataset}, {len(description.class_names)} classes{accuracy}"
