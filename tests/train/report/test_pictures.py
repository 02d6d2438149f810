"""The pictures of a finished run: what their titles find, and what they show, whatever names and sizes there are."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from train.report import confusion, curves, mistakes, style
from train.report.pictures import write_pictures
from train.report.predictions import Predictions
from train.training import loop

NAMES = ("a", "b", "c")


def logits_for(labels, predictions, classes=3, sure=4.0):
    """Logits by which each example is taken for its prediction."""
    logits = np.zeros((len(labels), classes), np.float32)
    logits[np.arange(len(labels)), predictions] = sure
    return logits


def colours(path):
    """How many pixels are of each colour."""
    with Image.open(path) as image:
        pixels, counts = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0, return_counts=True)
    return {"#" + bytes(pixel).hex().upper(): int(count) for pixel, count in zip(pixels, counts, strict=True)}


def write(folder, labels, predictions, names=NAMES, inputs=None):
    labels, predictions = np.array(labels), np.array(predictions)
    inputs = np.zeros((len(labels), 6, 6, 1), np.uint8) if inputs is None else inputs
    write_pictures(folder, Predictions("blobs", names, inputs, labels, logits_for(labels, predictions, len(names))))


@pytest.mark.parametrize(
    ("counts", "title"),
    [
        ([[2, 0], [0, 998]], "blobs: all 1,000 test examples are right"),
        ([[4, 0], [1, 5]], "blobs: 90.00% of 10 test examples are right\nMost frequent mistake: b taken for a (once)"),
        (
            [[0, 2, 2], [0, 5, 0], [1, 0, 0]],
            "blobs: 50.00% of 10 test examples are right\n"
            "Most frequent mistakes: a taken for b, a taken for c (2 times each)",
        ),
        (
            [[3, 1, 1], [1, 3, 1], [1, 0, 1]],
            "blobs: 58.33% of 12 test examples are right\nNo class is taken for another more than once",
        ),
        (
            [[3, 2, 2], [2, 3, 2], [2, 0, 4]],
            "blobs: 50.00% of 20 test examples are right\n"
            "Most frequent mistakes: a taken for b, a taken for c and 3 more (2 times each)",
        ),
    ],
)
def test_the_title_of_the_confusion_states_the_finding(counts, title):
    assert confusion.title("blobs", NAMES, np.array(counts)) == title


def test_confusions_are_counted():
    labels, said = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 1, 2, 0, 0])
    expected = [[1, 0, 1], [0, 1, 0], [2, 0, 1]]
    np.testing.assert_array_equal(confusion.matrix(labels, said, 3), expected)


def test_the_worst_mistakes_come_first_then_the_least_certain_of_the_others():
    logits = np.array([[9.0, 0, 0], [0, 1, 0], [2, 0, 0], [5, 0, 0], [0, 0, 7]])
    cases = mistakes.worst(NAMES, np.array([0, 0, 1, 1, 1]), logits)
    assert [(case.example, case.true, case.predicted) for case in cases] == [
        (4, "b", "c"),
        (3, "b", "a"),
        (2, "b", "a"),
        (1, "a", "b"),
        (0, "a", "a"),
    ]
    worst = cases[0]
    assert worst.predicted_probability == pytest.approx(np.exp(7) / (np.exp(7) + 2))
    assert worst.true_probability == pytest.approx(1 / (np.exp(7) + 2))
    assert [case.example for case in mistakes.worst(NAMES, np.array([0, 0, 1, 1, 1]), logits, most=2)] == [4, 3]


def test_without_mistakes_the_least_certain_come_first():
    logits = np.array([[9.0, 0, 0], [0, 1, 0], [0, 0, 3]])
    cases = mistakes.worst(NAMES, np.array([0, 1, 2]), logits)
    assert [case.example for case in cases] == [1, 2, 0]
    assert all(case.right for case in cases)


def test_two_pictures_are_written_and_nothing_else(tmp_path):
    write(tmp_path, [0, 1, 2, 2], [0, 1, 2, 0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.png", "mistakes.png"]
    for name, height in (("confusion.png", 735), ("mistakes.png", 457)):
        with Image.open(tmp_path / name) as image:
            assert (image.format, image.size) == ("PNG", (1350, height))


def test_the_cells_of_the_confusion(tmp_path):
    write(tmp_path, [0, 0, 0, 0, 0, 1, 2], [0, 2, 2, 2, 2, 1, 2])
    right = [255 - 0.25 * (255 - int(style.RIGHT[i : i + 2], 16)) for i in (1, 3, 5)]
    wrong = [int(style.WRONG[i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(tmp_path / "confusion.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(float)
    cells = [int(np.all(np.abs(pixels - colour) <= 1, -1).sum()) for colour in (right, wrong)]
    assert cells[1] > 10_000  # one kind of mistake
    assert 2.8 < cells[0] / cells[1] < 3.2  # three cells on the diagonal


def test_images_are_shown_as_they_are(tmp_path):
    images = np.full((2, 6, 6, 3), (10, 200, 30), np.uint8)
    write(tmp_path, [0, 1], [1, 0], inputs=images)
    assert colours(tmp_path / "mistakes.png")["#0AC81E"] > 2 * 150**2
    grey = np.full((2, 6, 6, 1), 77, np.uint8)  # neither stretched to black nor to white
    write(tmp_path, [0, 1], [1, 0], inputs=grey)
    assert colours(tmp_path / "mistakes.png")["#4D4D4D"] > 2 * 150**2


@pytest.mark.parametrize("mistaken", [True, False])
def test_what_is_no_image_is_shown_by_its_probabilities(mistaken, tmp_path):
    write(tmp_path, [0, 1, 2], [1, 0, 2] if mistaken else [0, 1, 2], inputs=np.zeros((3, 4), np.float32))
    found = colours(tmp_path / "mistakes.png")
    assert found[style.RIGHT] > 300
    assert (found.get(style.WRONG, 0) > 300) == mistaken


@pytest.mark.parametrize("count", [1, 6, 7, 24, 25, 60])
def test_any_number_of_mistakes(count, tmp_path):
    write(tmp_path, np.zeros(count, int), np.ones(count, int))
    with Image.open(tmp_path / "mistakes.png") as image:
        rows = -(-min(count, 24) // 6)
        assert image.size == (1350, int(150 * (0.9 + 2.15 * rows)))


def test_odd_names(tmp_path):
    """Dollars are no formula, and what is long is shortened."""
    write(tmp_path, [0, 1, 2, 2], [0, 1, 2, 0], names=("$x_1$", "50% <b>\\alpha", "a class of a very long name indeed"))
    assert (tmp_path / "confusion.png").stat().st_size > 10_000


@pytest.mark.parametrize("classes", [2, 21, 100])
def test_any_number_of_classes(classes, tmp_path):
    labels = np.arange(classes)
    write(tmp_path, labels, (labels + labels % 2) % classes, names=tuple(map(str, labels)))
    assert (tmp_path / "confusion.png").stat().st_size > 10_000


def test_a_class_without_examples(tmp_path):
    write(tmp_path, [0, 0, 1], [0, 2, 1])
    assert (tmp_path / "confusion.png").stat().st_size > 10_000


@pytest.mark.parametrize("lengths", [(2, 3, 3), (3, 2, 3), (3, 3, 2), (0, 0, 0)])
def test_what_does_not_belong_together(lengths, tmp_path):
    inputs, labels, logits = (
        np.zeros((length, *rest), int) for length, rest in zip(lengths, ((4,), (), (3,)), strict=True)
    )
    message = "inputs, labels and logits must be of the same examples, one or more; got {}, {} and {}".format(*lengths)
    with pytest.raises(ValueError, match=message):
        write_pictures(tmp_path, Predictions("blobs", NAMES, inputs, labels, logits))
    assert list(tmp_path.iterdir()) == []


def test_the_same_input_gives_the_same_file(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, [0, 1, 2, 2], [0, 1, 2, 0])
    for name in ("confusion.png", "mistakes.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match=r"confusion\.png cannot be written: No such file"):
        write(tmp_path / "none", [0, 1, 2], [0, 1, 2])


def colour_count(image, colour):
    return np.sum(np.all(np.asarray(image) == [int(colour[i : i + 2], 16) for i in (1, 3, 5)], axis=-1))


@pytest.mark.parametrize("held_out", [False, True])
def test_the_curves_are_a_picture_with_all_of_them(held_out, tmp_path, recorded):
    epochs = recorded.epochs
    if held_out:
        epochs = [dataclasses.replace(each, validation_loss=0.5, validation_accuracy=0.9) for each in epochs]
    curves.write(tmp_path / "curves.png", "blobs", recorded.progress, epochs, steps_per_epoch=6)
    with Image.open(tmp_path / "curves.png") as image:
        assert (image.format, image.size) == ("PNG", (1350, 600))
        left, right = (image.convert("RGB").crop((edge, 0, edge + 675, 540)) for edge in (0, 675))
    for panel in (left, right):
        assert colour_count(panel, "#FFFFFF") > 0.5 * 675 * 540
        for colour in (style.TRAINING, style.TEST):
            assert colour_count(panel, colour) > 100
        assert (colour_count(panel, style.VALIDATION) > 100) == held_out


@pytest.mark.parametrize(("epochs", "whole"), [(0.32, False), (1, True), (1.5, True), (20, True)])
def test_the_epochs_have_two_ticks_or_more(epochs, whole):
    axes = Figure().subplots()
    curves._ticks(axes, epochs)
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= epochs]
    assert len(ticks) >= 2
    assert all(float(tick).is_integer() for tick in ticks) == whole


def test_the_curves_of_a_single_epoch_without_loss(tmp_path):
    """A loss of 0 has no place on a log scale; it is no reason to fail."""
    progress = [loop.Progress(1, 1, 0.5, 0.75, 1e3), loop.Progress(1, 2, 0.0, 1.0, 1e3)]
    epochs = [loop.Epoch(1, 2, 0.25, 0.9, None, None, 0.0, 1.0, 1e3, 0.1)]
    curves.write(tmp_path / "curves.png", "blobs", progress, epochs, steps_per_epoch=2)
    with Image.open(tmp_path / "curves.png") as image:
        assert colour_count(image.convert("RGB"), style.TEST) > 20
