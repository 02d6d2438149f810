"""Digits in ordinary pictures, set as MNIST's makers set theirs."""

import numpy as np
import ordinary_pictures
import pytest
from PIL import Image
from scipy import ndimage

from train.commands.predict import Predict, predict
from train.inference.artifact import Preprocessing
from train.inference.handwriting import SETTINGS, Setting, read_digit, setting_of

MNIST = SETTINGS["mnist"]


def draw_seven(height=20, width=14, pen=3):
    """A 7 that fills its box: 1 is ink."""
    ink = np.zeros((height, width))
    ink[:pen] = 1
    for row in range(height):
        left = round((width - pen) * (1 - row / (height - 1)))
        ink[row, left : left + pen] = 1
    return ink


def page(ink, height, width, top, left):
    """Ink on an empty page."""
    whole = np.zeros((height, width))
    whole[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return whole


def values_of(ink, paper=255.0, pen=0.0):
    """A grey picture (H, W, 1)."""
    return (paper + (pen - paper) * ink)[..., None].astype(np.float32)


def read_pixels(values, setting=MNIST):
    digit = read_digit(values, setting)
    assert digit.pixels is not None, digit
    return digit.pixels


SEVEN = page(draw_seven(200, 140, 30), 400, 500, 90, 300)
SET = read_pixels(values_of(SEVEN))


def test_the_ink_fills_20_pixels_and_its_centre_of_mass_is_the_middle():
    rows, columns = np.flatnonzero(SET.any(1)), np.flatnonzero(SET.any(0))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 14)
    assert np.abs(np.subtract(ndimage.center_of_mass(SET), 14)).max() <= 0.5
    assert SET.max() == 255
    expected = 255 * draw_seven(20, 14, 3)
    found = SET[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.abs(found - expected).mean() < 0.1 * 255  # but for the edge of the slope


def test_the_digits_of_scikit_learn_are_centred_by_their_box():
    pixels = read_pixels(values_of(SEVEN), SETTINGS["digits"])
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (4, 23, 7, 20)


@pytest.mark.parametrize(("paper", "pen"), [(0, 255), (255, 100), (120, 30), (120, 220), (90, 130)])
def test_paper_and_pen_may_be_of_any_grey(paper, pen):
    np.testing.assert_allclose(read_pixels(values_of(SEVEN, paper, pen)), SET, atol=1)


@pytest.mark.parametrize("pen", [(200, 40, 40), (40, 40, 200), (250, 250, 250)])
def test_colours_of_the_same_luminance_differ(pen):
    values = ordinary_pictures.painted(SEVEN, (60, 130, 60), pen).astype(np.float32)
    np.testing.assert_allclose(read_pixels(values), SET, atol=1)


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(200, 140, 0, 0), (900, 1024, 10, 800), (210, 400, 10, 3)]
)
def test_the_place_and_the_page_do_not_matter(height, width, top, left):
    np.testing.assert_allclose(
        read_pixels(values_of(page(draw_seven(200, 140, 30), height, width, top, left))), SET, atol=1
    )


def test_uneven_light_noise_and_specks_do_not_matter():
    random = np.random.default_rng(0)
    light = np.linspace(0.6, 1, 500) * np.linspace(0.9, 1, 400)[:, None]
    values = values_of(SEVEN, 240, 40) * light[..., None] + random.normal(0, 4, (400, 500, 1))
    values[5:8, 5:8] = 0
    assert np.abs(read_pixels(values.astype(np.float32)).astype(int) - SET).mean() < 3


def test_a_sheet_on_a_table_is_looked_into():
    table = np.full((600, 800, 1), 60, np.float32)
    table[80:480, 120:620] = values_of(SEVEN)
    np.testing.assert_allclose(read_pixels(table), SET, atol=1)


def test_small_pictures_are_enlarged_before_they_are_cropped():
    small = np.asarray(Image.fromarray(np.float32(255 * SEVEN)).reduce(20))
    assert np.abs(read_pixels((255 - small)[..., None]).astype(int) - SET).mean() < 12


@pytest.mark.parametrize("pen", [1, 2, 6])
def test_thin_strokes_are_thickened(pen):
    pixels = read_pixels(values_of(page(draw_seven(400, 280, pen), 900, 900, 40, 50)))
    rows = slice(*(np.flatnonzero(pixels.any(1))[[0, -1]] + [0, 1]))
    assert (pixels[rows].max(1) >= 150).all()  # no row without the stroke
    assert 0.5 < pixels.mean() / SET.mean() < 1.1


def test_what_is_set_already_stays_as_it_is(real_mnist):
    for digit in real_mnist.test_inputs[:200]:
        for values in (digit, 255 - digit):
            np.testing.assert_array_equal(read_pixels(values.astype(np.float32)), digit[..., 0])


def empty_pages():
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:200j, -1:1:300j]
    return {
        "white": np.full((300, 200), 255.0),
        "grainy": 200 + random.normal(0, 8, (200, 300)),
        "lit from the side": 180 + 60 * x + random.normal(0, 4, x.shape),
        "darker corners": 230 - 60 * (x**2 + y**2) + random.normal(0, 3, x.shape),
        "a single pixel": np.zeros((1, 1)),
    }


@pytest.mark.parametrize("name", empty_pages())
def test_an_empty_page_shows_nothing(name):
    digit = read_digit(empty_pages()[name][..., None].astype(np.float32), MNIST)
    assert digit == (None, "nothing", "nothing stands out from the background")


@pytest.mark.parametrize(("top", "left", "said"), [(10, 190, 2), (240, 10, 2), (240, 190, 2)])
def test_several_digits_are_not_one(top, left, said):
    seven = draw_seven(200, 140, 30)
    both = np.maximum(page(seven, 460, 400, 10, 10), page(seven, 460, 400, top, left))
    digit = read_digit(values_of(both), MNIST)
    assert (digit.pixels, digit.shows) == (None, "several digits")
    assert digit.remark == f"it shows {said} digits or more: give each an image of its own"


def test_digits_that_touch_are_remarked():
    digit = read_digit(values_of(np.pad(np.tile(draw_seven(), 3), 9)), MNIST)
    assert digit.remark == "it is wider than a digit: if it shows several, give each an image of its own"


def test_a_digit_may_be_of_several_strokes():
    """A 5 whose bar is apart, and a 4 that is open."""
    bar = np.zeros((100, 70))
    bar[:8, 20:], bar[16:, 10:60] = 1, 1
    four = np.zeros((100, 70))
    four[:60, :8] = four[52:60, :40] = four[20:, 44:52] = 1
    for ink in (bar, four):
        assert read_digit(values_of(np.pad(ink, 30)), MNIST).shows == ""


def test_other_datasets_are_not_of_digits():
    form = Preprocessing(28, 28, 1)
    assert setting_of("mnist", form) == Setting(20, "mass")
    assert setting_of("fashion_mnist", form) is None
    assert setting_of("mnist", Preprocessing(32, 32, 3)) is None


def shown(network, runs, files, capsys, *, as_is=False):
    """The answer of a network for each file."""
    predict(Predict(network, tuple(files), as_is=as_is, runs_dir=runs))
    return [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]


def test_sixty_ordinary_pictures_of_digits(digits_run, tmp_path, capsys):
    """By two epochs on scikit-learn's digits, which are right about nine in ten; as they are, hardly any is read."""
    from train.data import load

    digits = load("digits")
    files = list(ordinary_pictures.write(tmp_path, digits.test_inputs[:60, ..., 0]))
    labels = [str(label) for label in digits.test_labels[:60]]
    right = np.mean([a == b for a, b in zip(shown(digits_run.folder, tmp_path, files, capsys), labels, strict=True)])
    as_is = shown(digits_run.folder, tmp_path, files, capsys, as_is=True)
    assert right >= 0.85
    assert np.mean([a == b for a, b in zip(as_is, labels, strict=True)]) < 0.3


def test_sixty_ordinary_pictures_of_mnist(mnist_run, real_mnist, tmp_path, capsys):
    files = list(ordinary_pictures.write(tmp_path, real_mnist.test_inputs[:60, ..., 0]))
    said = shown(mnist_run.folder, tmp_path, files, capsys)
    wrong = [
        f"{file.name}: {a}, not {b}"
        for file, a, b in zip(files, said, real_mnist.test_labels[:60], strict=True)
        if a != str(b)
    ]
    assert len(wrong) <= 3, wrong
