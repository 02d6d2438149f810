"""Ink on paper: the pixels of a picture that differ from its background, and by how much."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

LEAST_CONTRAST = 20.0  # of 255: fainter differences are the grain or the lighting of an empty page
SHARP = 0.05  # of the picture's side, within which ink ends: lighting changes more slowly
MOST_NOISE = 16.0  # of 255: paper has less; more is ink at the border of a small picture
EVEN = 4.0  # of 255: paper whose lighting changes by less is taken to be of one colour
SOLID, LARGE = 0.75, 0.2  # a sheet on a table fills so much of its own box, and of the picture
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


class Ink(NamedTuple):
    """The distance of each pixel from the paper's colour."""

    strength: np.ndarray  # (H, W) float32, of 255; 0 is paper
    noise: float  # the paper's, in the same unit


def find_ink(values: np.ndarray, dark: bool | None = None) -> Ink:
    """Find the difference from the paper in one direction: darker, lighter, or towards another colour.

    Args:
        values: (H, W, C) float32 in 0 to 255; C is 1 or 3.
        dark: the ink is darker than the paper; None: use the direction of most of the difference.

    """
    paper, noise = find_paper(values)
    difference = values - paper
    distance = np.sqrt((difference**2).mean(-1))
    direction = _direction(difference, distance) if dark is None else (-1 if dark else 1) * luminance_weights(values)
    return Ink(distance * (difference @ direction > 0), noise)


def is_dark(values: np.ndarray) -> bool:
    """True if the pixels that differ from the border's colour are mostly darker."""
    difference = values - find_paper(values)[0]
    distance = np.sqrt((difference**2).mean(-1))
    return bool(_direction(difference, distance) @ luminance_weights(values) < 0)


def luminance_weights(values: np.ndarray) -> np.ndarray:
    """The weight of each channel in the luminance."""
    return LUMINANCE if values.shape[-1] == 3 else np.ones(1, np.float32)


def _direction(difference: np.ndarray, distance: np.ndarray) -> np.ndarray:
    return (difference * distance[..., None]).sum((0, 1))


def find_paper(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the paper's colour at each pixel and its noise, by a plane through the border, excluding ink there."""
    height, width, channels = values.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    edge = np.ones((height, width), bool)
    margin = max(1, round(0.02 * min(height, width)))
    edge[margin : height - margin, margin : width - margin] = False
    border, where = values[edge], np.stack([np.ones(edge.sum(), np.float32), x[edge], y[edge]], -1)
    level, spread = _densest(border.mean(-1))
    near = np.abs(border.mean(-1) - level) <= max(LEAST_CONTRAST / 2, 3 * spread)
    plane, noise = np.zeros((3, channels), np.float32), 0.0
    for _ in range(2):
        plane = np.linalg.lstsq(where[near], border[near], rcond=None)[0]
        if np.abs(plane[1:]).sum(0).max() < EVEN:
            plane = np.stack([np.median(border[near], axis=0), *np.zeros((2, channels), np.float32)])
        residual = np.abs(border - where @ plane).max(-1)
        noise = min(1.5 * float(np.median(residual[near])), MOST_NOISE)
        near = residual <= max(LEAST_CONTRAST / 2, 4 * noise)
    return plane[0] + x[..., None] * plane[1] + y[..., None] * plane[2], noise


def _densest(values: np.ndarray) -> tuple[float, float]:
    """The middle of the narrowest interval that contains two fifths of the values, and half its width."""
    values, count = np.sort(values), -(-2 * len(values) // 5)
    widths = values[count - 1 :] - values[: len(values) - count + 1]
    start = int(widths.argmin())
    return float(values[start : start + count].mean()), float(widths[start]) / 2


def is_blank(ink: Ink) -> bool:
    """True if no ink stands out from paper and noise."""
    window = max(3, round(SHARP * max(ink.strength.shape)))
    swing = ndimage.maximum_filter(ink.strength, window) - ndimage.minimum_filter(ink.strength, window)
    return bool(swing.max() < max(LEAST_CONTRAST, 6 * ink.noise))


def inner_sheet(ink: Ink) -> tuple[slice, slice] | None:
    """The place of a sheet of paper within the picture, as on a table; None if there is none."""
    labels = connected(ink.strength > 0.5 * ink.strength.max())
    sizes = np.bincount(labels.ravel())[1:]
    if not sizes.size:
        return None
    box = ndimage.find_objects(labels)[int(sizes.argmax())]
    sides = [part.stop - part.start for part in box]
    if min(sides) < 20 or sizes.max() < max(SOLID * sides[0] * sides[1], LARGE * labels.size):
        return None
    rows, columns = (
        slice(part.start + margin, part.stop - margin)
        for part, margin in ((part, max(1, round(0.03 * side))) for part, side in zip(box, sides, strict=True))
    )
    return rows, columns


def connected(mask: np.ndarray) -> np.ndarray:
    """The number of the connected part of each pixel, from 1, or 0 for none; diagonal neighbours are connected."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3, 3)), output=labels)
    return labels


def full_strength(strength: np.ndarray) -> float:
    """The strength of full ink: almost the largest."""
    return float(np.percentile(strength[strength > 0.5 * strength.max()], 90))


def box_of(array: np.ndarray) -> tuple[slice, slice]:
    """The bounding box of all entries other than 0."""
    rows, columns = (np.flatnonzero(array.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def enlarge(ink: Ink, least: int) -> Ink:
    """Crop and enlarge small ink to a longer side of at least `least` pixels, with equally sharp edges."""
    box = box_of(ink.strength > 0.5 * ink.strength.max())
    side = max(part.stop - part.start for part in box)
    factor = -(-least // side)
    if factor == 1:
        return ink
    around = tuple(slice(max(0, part.start - side), part.stop + side) for part in box)
    framed = Image.fromarray(np.pad(ink.strength[around], 1))  # ink at the border ends there
    large = np.asarray(framed.resize((framed.width * factor, framed.height * factor), Image.Resampling.BICUBIC))
    full = full_strength(large)
    return Ink(np.clip(2 * large - full / 2, 0, full), ink.noise)


def thicken(ink: np.ndarray, least: float) -> np.ndarray:
    """Thicken the strokes of ink to a width of about `least` pixels or more."""
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(ink > 0.5 * full_strength(ink), 1)))
    across = 4 * float(depth[depth > 0].mean()) - 2  # a bar of w pixels has depths 1, 2, … w/2 from each side
    missing = round(least - across)
    return ndimage.grey_dilation(ink, (missing + 1, missing + 1)) if missing > 0 else ink
