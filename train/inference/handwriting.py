"""Pictures of digits, prepared as in MNIST: the ink is found, cropped, scaled and centred.

Paper has the colour of the border; ink differs from it: darker, lighter or of another colour. The bounding box of the
ink is scaled to 20 pixels with its proportions kept, and placed in 28x28 by its centre of mass (LeCun, Cortes & Burges,
"The MNIST database of handwritten digits").
"""

from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from train.inference.artifact import Preprocessing
from train.inference.ink import Ink, box_of, connected, enlarge, find_ink, full_strength, inner_sheet, is_blank, thicken

SIDE = 28  # of the images that the datasets below consist of
EDGE = 0.15  # of full ink: the crop ends where ink becomes fainter
SPECK = 0.03  # of the ink of the largest stroke: a stroke with less is dirt
LEAST_HEIGHT, LEAST_INK, GAP = 0.5, 0.2, 0.05  # of a stroke that is a digit of its own, relative to the largest
WIDEST = 1.7  # width by height: of MNIST's 10,000 test digits 5 are wider
SMALL = 60  # pixels: smaller ink is enlarged before it is cropped, since a pixel is much of it
THINNEST = 1.6  # pixels of the result: a pen's thinner strokes are thickened


class Setting(NamedTuple):
    """The size and the centre of digits in the images of a dataset."""

    box: int  # pixels of the longer side of the ink
    centre: Literal["mass", "box"]


SETTINGS = {"mnist": Setting(20, "mass"), "digits": Setting(20, "box")}


class Digit(NamedTuple):
    """The image for the network, or a phrase if the picture does not show one digit."""

    pixels: np.ndarray | None  # (height, width) uint8, light on dark
    shows: Literal["", "nothing", "several digits"] = ""
    remark: str = ""


def setting_of(dataset: str, form: Preprocessing) -> Setting | None:
    """The setting of a dataset's images; None if they do not show single digits."""
    return SETTINGS.get(dataset) if (form.height, form.width, form.channels) == (SIDE, SIDE, 1) else None


def read_digit(values: np.ndarray, setting: Setting, dark: bool | None = None) -> Digit:
    """Prepare the digit in a picture as in a dataset.

    Args:
        values: (H, W, C) float32 in 0 to 255; C is 1 or 3.
        setting: the dataset's.
        dark: the ink is darker than the paper; None: detect it from the border.

    """
    ink = find_ink(values, dark)
    sheet = inner_sheet(ink)
    if sheet is not None and not is_blank(inner := find_ink(values[sheet], dark)):
        ink = inner
    if is_blank(ink):
        return Digit(None, "nothing", "nothing stands out from the background")
    if is_set(ink.strength, setting):
        return Digit(np.rint(ink.strength).astype(np.uint8))
    ink = enlarge(ink, SMALL)
    strokes = find_strokes(ink)
    count = count_digits(strokes)
    if count > 1:
        return Digit(None, "several digits", f"it shows {count} digits or more: give each an image of its own")
    rows, columns = box_of(strokes.labels)
    cropped = (ink.strength * (strokes.labels > 0))[rows, columns]
    too_wide = cropped.shape[1] > WIDEST * cropped.shape[0]
    remark = "it is wider than a digit: if it shows several, give each an image of its own" if too_wide else ""
    return Digit(_place(_scale(cropped, setting.box), setting.centre), remark=remark)


def is_set(strength: np.ndarray, setting: Setting) -> bool:
    """True if an image already has the setting of the dataset, so that it stays unchanged to the bit."""
    if strength.shape != (SIDE, SIDE) or strength.max() < 250:
        return False
    sides = [part.stop - part.start for part in box_of(strength)]
    off = np.subtract(_centre(strength, setting.centre), _aim(setting.centre))
    return abs(max(sides) - setting.box) <= 1 and bool(np.abs(off).max() <= 1)


class Strokes(NamedTuple):
    """The connected parts of the ink, without specks."""

    labels: np.ndarray  # (H, W): the number of each pixel's stroke, 0 for paper
    ink: np.ndarray  # of each stroke, summed
    boxes: list[tuple[slice, slice]]


def find_strokes(ink: Ink) -> Strokes:
    """Find the connected parts of the ink, without specks."""
    full = full_strength(ink.strength)
    labels = connected(ink.strength > max(EDGE * full, 3 * ink.noise))
    mass = np.bincount(labels.ravel(), ink.strength.ravel())
    mass[0] = 0
    faint = np.ones(len(mass), bool)
    faint[labels[ink.strength >= 0.4 * full]] = False
    kept = np.flatnonzero((mass >= SPECK * mass.max()) & ~faint)
    renumbered = np.zeros(len(mass), np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    labels = renumbered[labels]
    return Strokes(labels, mass[kept], ndimage.find_objects(labels))


def count_digits(strokes: Strokes) -> int:
    """Return the least number of digits in the strokes, which are as tall as a digit and beside or below each other.

    A digit may consist of several strokes, such as an open 4 or a 5 with a separate bar: these overlap in both
    directions, or one of them is small.
    """
    heights = np.array([box[0].stop - box[0].start for box in strokes.boxes])
    inkiest = heights[strokes.ink.argmax()]
    large = (heights >= LEAST_HEIGHT * inkiest) & (strokes.ink >= LEAST_INK * strokes.ink.max())
    boxes = [box for box, is_large in zip(strokes.boxes, large, strict=True) if is_large]
    digits = 1
    for axis in (0, 1):
        spans = sorted((box[axis].start, box[axis].stop) for box in boxes)
        groups, end = 1, spans[0][1]
        for start, stop in spans[1:]:
            groups += start - end > GAP * heights[large].max()
            end = max(end, stop)
        digits = max(digits, groups)
    return digits


def _scale(ink: np.ndarray, box: int) -> np.ndarray:
    """Scale the ink to a longer side of `box` pixels, in 0 to 255."""
    height, width = (max(1, round(box * side / max(ink.shape))) for side in ink.shape)
    thick = thicken(ink, THINNEST * max(ink.shape) / box)
    scaled = np.asarray(Image.fromarray(thick).resize((width, height), Image.Resampling.BOX))
    return np.clip(scaled * (255 / full_strength(scaled)), 0, 255)


def _place(ink: np.ndarray, centre: Literal["mass", "box"]) -> np.ndarray:
    """Place the ink in the middle of a dark image, moved by whole pixels."""
    places = zip(_centre(ink, centre), _aim(centre), ink.shape, strict=True)
    top, left = (min(max(round(aim - middle), 0), SIDE - side) for middle, aim, side in places)
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[top : top + ink.shape[0], left : left + ink.shape[1]] = np.rint(ink)
    return pixels


def _aim(centre: Literal["mass", "box"]) -> tuple[float, float]:
    """The place of the centre in the dataset's images: MNIST's centres of mass are at pixel 14 of 0 to 27."""
    middle = SIDE / 2 if centre == "mass" else (SIDE - 1) / 2
    return middle, middle


def _centre(ink: np.ndarray, centre: Literal["mass", "box"]) -> tuple[float, float]:
    if centre == "mass":
        row, column = (np.average(np.arange(ink.shape[axis]), weights=ink.sum(1 - axis)) for axis in (0, 1))
        return float(row), float(column)
    rows, columns = box_of(ink)
    return (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
