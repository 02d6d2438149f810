"""`python -m train predict RUN_OR_EXPORT IMAGE...`: classify images."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from train.commands.options import Predict
from train.host.console import Console
from train.host.errors import UsageError
from train.host.words import count
from train.inference import classify as classifiers
from train.inference import image_files, images
from train.inference.artifact import Description
from train.inference.classify import Classifier
from train.inference.handwriting import setting_of
from train.inference.images import Picture, Treatment
from train.runs import restored


class Prediction(NamedTuple):
    """The most probable classes of an image, in order."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]  # empty if the only "class" is a phrase: nothing, or several digits


def predict(options: Predict) -> None:
    """Print a table in a terminal, and elsewhere one line per image: file, class, probability, class, ..., with tabs.

    An image of nothing, or of several digits, has this phrase as its class, and no probability. Files that cannot be
    read are reported on stderr, and the others are classified.

    Raises:
        UsageError: the network cannot be used; or, at the end, some of the images could not be read.

    """
    if options.top < 1:
        raise UsageError(f"--top must be at least 1; got {options.top}")
    if not options.images:
        raise UsageError("there is nothing to predict: pass one or more image files, or a folder of them")
    classifier = load(options.network, options.runs_dir)
    description = classifier.description
    if description.preprocessing is None:
        shape = "x".join(map(str, description.input_shape))
        raise UsageError(
            f"{classifier.name} was trained on {description.dataset}: it takes {shape} numbers, not images"
        )
    treatment = treat(options, description)
    print(_describe(classifier) + _assumption(description, treatment), file=sys.stderr)
    pictures, failed = _read(options.images, description, treatment)
    show(Console(), classify(classifier, pictures, options.top))
    if failed:
        raise UsageError(f"{failed} of {count(len(pictures) + failed, 'image')} could not be read")


def treat(options: Predict, description: Description) -> Treatment:
    """The treatment of the images by the options and the training data."""
    assert description.preprocessing is not None
    return Treatment(setting_of(description.dataset, description.preprocessing), options.as_is, options.invert)


def load(network: Path, runs_dir: Path) -> Classifier:
    """Load the network of an exported file or of a run.

    Raises:
        UsageError: it is neither, or damaged.

    """
    if network.is_file():
        return classifiers.of_file(network)
    if not network.exists() and not (runs_dir / network).exists():
        raise UsageError(
            f"there is no {network}: neither a file from `export`, nor a run, nor one of this name in {runs_dir}"
        )
    return classifiers.of_run(restored.restore(network, runs_dir))


def classify(classifier: Classifier, pictures: Sequence[tuple[Path, Picture]], top: int) -> list[Prediction]:
    """Return the most probable classes of images, or a phrase for images without a class."""
    inputs = [picture.pixels for _, picture in pictures if picture.pixels is not None]
    rows = iter(classifier.probabilities(np.stack(inputs)) if inputs else ())
    names = classifier.description.class_names
    return [
        Prediction(path, (picture.shows,), ()) if picture.pixels is None else _prediction(path, next(rows), names, top)
        for path, picture in pictures
    ]


def show(console: Console, predictions: Sequence[Prediction]) -> None:
    """Print a table in a terminal, and lines elsewhere."""
    if not console.is_terminal:
        for path, classes, probabilities in predictions:
            pairs = (f"{name}\t{probability:.4f}" for name, probability in zip(classes, probabilities, strict=False))
            print(path, *(pairs if probabilities else classes), sep="\t")
        return
    table = Table("image", "shows")
    table.add_column("probability", justify="right")
    table.add_column("or else")
    for path, classes, probabilities in predictions:
        others = zip(classes[1:], probabilities[1:], strict=True)
        table.add_row(
            Text(str(path), overflow="fold"),
            Text(classes[0], "bold" if probabilities else "dim"),
            f"{probabilities[0]:.2%}" if probabilities else "",
            Text(", ".join(f"{name} {probability:.2%}" for name, probability in others)),
        )
    if predictions:
        console.print(table)


def _read(
    paths: Sequence[Path], description: Description, treatment: Treatment
) -> tuple[list[tuple[Path, Picture]], int]:
    """Read images, and count those that cannot be read; errors and notes go to stderr."""
    assert description.preprocessing is not None
    pictures, failed = [], 0
    for name in paths:
        try:
            found = image_files.listed(name)
        except images.ImageError as error:
            found, failed = [], failed + 1
            print(f"error: {error}", file=sys.stderr)
        for path in found:
            try:
                picture = images.read(path, description.preprocessing, treatment)
            except images.ImageError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
                continue
            if picture.remark:
                print(f"note: {path}: {picture.remark}", file=sys.stderr)
            pictures.append((path, picture))
    return pictures, failed


def _prediction(path: Path, row: np.ndarray, names: Sequence[str], top: int) -> Prediction:
    best = sorted(range(len(names)), key=lambda i: -row[i])[:top]
    return Prediction(path, tuple(names[i] for i in best), tuple(float(row[i]) for i in best))


def _assumption(description: Description, treatment: Treatment) -> str:
    """Describe how the images are read."""
    assert description.preprocessing is not None
    polarity = "dark on light (--invert)" if treatment.invert else "light on dark"
    if description.preprocessing.polarity is None:
        return "; images are inverted (--invert)" if treatment.invert else ""
    if treatment.as_is:
        return f"; images are used as they are (--as-is), {polarity}"
    how = "dark on light (--invert)" if treatment.invert else "polarity detected from the border"
    return f"; digits are cropped and centred, {how}" if treatment.setting else f"; {how}"


def _describe(classifier: Classifier) -> str:
    description = classifier.description
    accuracy = "" if description.test_accuracy is None else f", test accuracy {description.test_accuracy:.2%}"
    return f"{classifier.name}: {description.dataset}, {len(description.class_names)} classes{accuracy}"
