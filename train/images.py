"""Image files of any size and kind, as the network takes them."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from train.artifact import Preprocessing
from train.errors import UsageError

if TYPE_CHECKING:  # slow to import
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
MOST_PIXELS = 100_000_000
LIGHT = 128  # where a margin of bytes is called light


class ImageError(UsageError):
    """A file is no image that can be used."""


class Picture(NamedTuple):
    """An image as the network takes it, and what a person should know of it."""

    pixels: np.ndarray  # (height, width, channels) uint8
    remark: str = ""


def read(path: Path, form: Preprocessing, invert: bool = False) -> Picture:
    """Reads an image file.

    It is turned upright as its EXIF data say, made grey or RGB, laid on the background where it is transparent, scaled
    to fit, and, where it is not of the network's proportions, centred on the background. The background is black; with
    `invert` white, before black and white are exchanged.

    Args:
        path: of a PNG, JPEG, GIF, BMP, TIFF or WebP file; of several frames, the first one counts.
        form: what the network takes.
        invert: the image is dark on light.

    Raises:
        ImageError: there is no such file, or it is no image, damaged, or too large.

    """
    background = 255 if invert else 0
    image = _decode(path, form.channels, background)
    scaled = _scale(image, form)
    pixels = np.full((form.height, form.width, form.channels), background, np.uint8)
    top, left = (form.height - scaled.shape[0]) // 2, (form.width - scaled.shape[1]) // 2
    pixels[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    if invert:
        pixels, scaled = 255 - pixels, 255 - scaled
    return Picture(pixels, _remark(scaled, form, invert))


def _decode(path: Path, channels: int, background: int) -> "Image.Image":
    """The upright image in mode L or RGB, at its own size."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ImageError(f"{path} is of {image.width}x{image.height} pixels: more than {MOST_PIXELS:,}")
                image.load()
                return _flatten(ImageOps.exif_transpose(image), path, "L" if channels == 1 else "RGB", background)
    except UnidentifiedImageError:
        raise ImageError(f"{path} is no image ({', '.join(FORMATS)}), or damaged at its beginning") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{path} is of more than {MOST_PIXELS:,} pixels") from None
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything at all of damaged content
        raise ImageError(f"{path} is damaged or cut short: {error}") from error


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder: name the images in it, as in {path}/*.png")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ImageError(f"there is no {path}") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def _flatten(image: "Image.Image", path: Path, mode: str, background: int) -> "Image.Image":
    """The image without transparency, in a mode of 8 bits a channel."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        flat = _from_deep(image, path, background)
    elif image.has_transparency_data:
        paper = Image.new("RGBA", image.size, (background,) * 3 + (255,))
        flat = Image.alpha_composite(paper, image.convert("RGBA"))
    else:
        flat = image
    return flat.convert("RGB").convert(mode)  # by way of RGB: from every mode there is a way to it


def _from_deep(image: "Image.Image", path: Path, background: int) -> "Image.Image":
    """Grey of 16 bits as grey of 8."""
    from PIL import Image

    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{path} does not have values of 8 or 16 bits: convert it to PNG")
    deep = (values.astype(np.uint32) + 128) // 257
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        deep[values == transparent] = background
    return Image.fromarray(deep.astype(np.uint8))


def _scale(image: "Image.Image", form: Preprocessing) -> np.ndarray:
    """The image as large as the network's inputs allow, its proportions kept; (height, width, channels)."""
    from PIL import Image

    factor = min(form.width / image.width, form.height / image.height)
    width, height = (max(1, round(factor * side)) for side in image.size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)  # averages over what becomes one pixel
    return np.asarray(scaled).reshape(height, width, form.channels)


def _remark(pixels: np.ndarray, form: Preprocessing, invert: bool) -> str:
    """What speaks against the image being of the kind that the network has learned from."""
    if form.polarity is None:
        return ""
    other = "leave out --invert" if invert else "try --invert"
    if pixels.min() == pixels.max():
        return f"it is of one colour throughout (transparency counts as background): {other}"
    margin = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(margin) >= LIGHT:
        return f"its margin is light, as if it were {'light on dark' if invert else 'dark on light'}: {other}"
    return ""
