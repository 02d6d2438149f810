"""Twelve kinds of ordinary image files, each made from a digit of a test set."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SMOOTH = Image.Resampling.BICUBIC
EXIF_ORIENTATION, QUARTER_TURN = 0x0112, 6
Draw = Callable[[np.ndarray, Path, np.random.Generator], Path]


def enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """The digit in shape (side, side), with values from 0 to 1, where 1 is ink."""
    return np.asarray(Image.fromarray(digit).resize((side, side), SMOOTH), np.float64) / 255


def anywhere(ink: np.ndarray, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """The ink at a random place of a larger page."""
    page = np.zeros((height, width))
    top, left = random.integers(height - ink.shape[0] + 1), random.integers(width - ink.shape[1] + 1)
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return page


def save(path: Path, values: np.ndarray, **options: Any) -> Path:
    """Write values from 0 to 255, rounded, to an image file."""
    Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8)).save(path, **options)
    return path


def painted(ink: np.ndarray, paper: Sequence[float], pen: Sequence[float]) -> np.ndarray:
    """(H, W, 3): ink of one colour on paper of another."""
    return np.array(paper) + ink[..., None] * (np.array(pen, float) - np.array(paper))


def black_on_white(digit, path, random):
    return save(path.with_suffix(".png"), 255 - 255 * enlarged(digit, 112))


def off_centre(digit, path, random):
    return save(path.with_suffix(".bmp"), 255 - 255 * anywhere(enlarged(digit, 60), 200, 320, random))


def large(digit, path, random):
    page = anywhere(enlarged(digit, 900), 2000, 3000, random)
    return save(path.with_suffix(".png"), 255 - 255 * page, compress_level=1)


def small(digit, path, random):
    """8×8 pixels without a margin: hardly three pixels for two strokes."""
    return save(path.with_suffix(".png"), 255 - np.asarray(Image.fromarray(digit[4:24, 4:24]).resize((8, 8)), float))


def transparent(digit, path, random):
    """Black ink on a transparent ground, whose colour must not show."""
    alpha = np.rint(255 * enlarged(digit, 140)).clip(0, 255).astype(np.uint8)
    Image.merge("LA", [Image.new("L", (140, 140), 0), Image.fromarray(alpha)]).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def transparent_white(digit, path, random):
    """White ink on a transparent ground."""
    alpha = Image.fromarray(np.rint(255 * enlarged(digit, 140)).clip(0, 255).astype(np.uint8))
    Image.merge("RGBA", [*[Image.new("L", (140, 140), 255)] * 3, alpha]).save(path.with_suffix(".webp"), lossless=True)
    return path.with_suffix(".webp")


def blue_on_cream(digit, path, random):
    return save(
        path.with_suffix(".jpg"),
        painted(anywhere(enlarged(digit, 90), 150, 200, random), (250, 240, 210), (30, 40, 140)),
    )


def red_on_green(digit, path, random):
    """Red ink on green paper of about the same luminance."""
    return save(
        path.with_suffix(".png"), painted(anywhere(enlarged(digit, 90), 150, 200, random), (60, 150, 60), (220, 70, 60))
    )


def chalk(digit, path, random):
    return save(path.with_suffix(".gif"), 40 + 150 * anywhere(enlarged(digit, 80), 160, 120, random))


def lying(digit, path, random):
    """A photo stored sideways; the EXIF data give its orientation."""
    upright = 255 - 255 * anywhere(enlarged(digit, 112), 180, 240, random)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = QUARTER_TURN
    return save(path.with_suffix(".jpg"), upright.T[::-1], exif=exif)


def photo(digit, path, random):
    """An unevenly lit photo with noise and few pixels."""
    page = anywhere(enlarged(digit, 100), 160, 220, random)
    light = np.linspace(235, 150, 220) * np.linspace(1, 0.9, 160)[:, None]
    return save(path.with_suffix(".jpg"), light * (1 - 0.75 * page) + random.normal(0, 4, page.shape), quality=80)


def twelve_bits(digit, path, random):
    """A 16-bit file of a 12-bit scan, whose largest value is 4095."""
    page = 4095 - np.rint(3900 * anywhere(enlarged(digit, 84).clip(0, 1), 100, 100, random))
    Image.fromarray(page.astype(np.uint16)).save(path.with_suffix(".tiff"))
    return path.with_suffix(".tiff")


KINDS: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (
        black_on_white,
        off_centre,
        large,
        small,
        transparent,
        transparent_white,
        blue_on_cream,
        red_on_green,
        chalk,
        lying,
        photo,
        twelve_bits,
    )
}


def write(folder: Path, digits: np.ndarray) -> Iterator[Path]:
    """Write a file per digit (N, 28, 28) uint8, light on dark, cycling through the kinds."""
    random = np.random.default_rng(0)
    for i, digit in enumerate(digits):
        name = list(KINDS)[i % len(KINDS)]
        yield KINDS[name](digit, folder / f"{i:03d}-{name}", random)
