"""Reading image files of any size and kind as inputs of a network."""

import dataclasses
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from train.inference import handwriting, ink
from train.inference.artifact import Preprocessing
from train.inference.handwriting import Setting
from train.inference.image_files import FORMATS, ImageError, opened

MOST_PIXELS = 100_000_000
ENOUGH_PIXELS = 1024  # per side, to find a digit
LIGHT = 128  # a margin counts as light from this value on
DEPTHS = (8, 10, 12)  # bits that cameras and scanners write to files of 16 bits
LEAST_UPPER_BYTE = 1 << max(DEPTHS) - 8


@dataclasses.dataclass(frozen=True)
class Treatment:
    """The treatment that makes an image look like those that the network was trained on.

    Attributes:
        setting: the setting of the dataset's digits; None to resize images only.
        as_is: change neither polarity nor setting.
        invert: the image is dark on light, whatever it looks like.

    """

    setting: Setting | None = None
    as_is: bool = False
    invert: bool = False


class Picture(NamedTuple):
    """An image as an input of the network, with a remark for the user."""

    pixels: np.ndarray | None  # (height, width, channels) uint8; None if it shows no class
    remark: str = ""
    shows: str = ""  # a phrase in place of a class, if there are no pixels


def read(path: Path, form: Preprocessing, treatment: Treatment = Treatment()) -> Picture:
    """Read an image file.

    It is turned upright by its EXIF data, converted to grey or RGB, and placed on paper if it is transparent. Then a
    digit is prepared as in the dataset; any other image is scaled to fit, with its proportions kept, and centred.

    Args:
        path: a PNG, JPEG, GIF, BMP, TIFF or WebP file, of which the first frame is read, or a pipe.
        form: the inputs of the network.
        treatment: the treatment of the image.

    Raises:
        ImageError: the file does not exist, is not an image, is damaged, or is too large.

    """
    image, note = _decode(path)
    if treatment.setting is not None and not treatment.as_is:
        picture = _digit(image, treatment.setting, treatment.invert)
    else:
        picture = _whole(image, form, treatment)
    return picture._replace(remark="; ".join(filter(None, (note, picture.remark))))


def _digit(image: Image.Image, setting: Setting, invert: bool) -> Picture:
    image = image.reduce(
        -(-max(image.size) // ENOUGH_PIXELS)
    )  # weights the colours of transparent images by their alpha
    digit = handwriting.read_digit(_values(_on_paper(image)), setting, dark=True if invert else None)
    pixels = None if digit.pixels is None else digit.pixels[..., None]
    return Picture(pixels, digit.remark, digit.shows)


def _whole(image: Image.Image, form: Preprocessing, treatment: Treatment) -> Picture:
    """Scale an image to fit, and centre it on black; invert it if it is dark on light."""
    judged = form.polarity is not None and not treatment.as_is and not treatment.invert
    if judged:
        image = _on_paper(image)
        dark = ink.is_dark(_values(image.reduce(-(-max(image.size) // ENOUGH_PIXELS))))
    else:
        dark = treatment.invert
        image = _composite(image, 255 if dark else 0)
    scaled = _scale(image.convert("L" if form.channels == 1 else "RGB"), form)
    if not treatment.as_is and (scaled == scaled[0, 0]).all():
        return Picture(None, "it is of one colour throughout", "nothing")
    scaled = 255 - scaled if dark else scaled
    pixels = np.zeros((form.height, form.width, form.channels), np.uint8)
    top, left = (form.height - scaled.shape[0]) // 2, (form.width - scaled.shape[1]) // 2
    pixels[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return Picture(pixels, _remark(scaled, treatment.invert) if form.polarity and treatment.as_is else "")


def _decode(path: Path) -> tuple[Image.Image, str]:
    """Decode an image, upright and in mode L, LA, RGB or RGBA, with a note on how its values were read."""
    source = opened(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ImageError(f"{path} has {image.width}x{image.height} pixels: more than {MOST_PIXELS:,}")
                deep = any(";16" in str(tile[3]) for tile in image.tile)
                image.load()
                if deep and not image.mode.startswith("I"):
                    _check_upper_bytes(image, path)
                return _in_bytes(ImageOps.exif_transpose(image), path)
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image ({', '.join(FORMATS)}), or damaged at its beginning") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{path} has more than {MOST_PIXELS:,} pixels") from None
    except ImageError:
        raise
    except Exception as error:  # decoders raise any error for damaged content
        raise ImageError(f"{path} is damaged or cut short: {error}") from error


def _check_upper_bytes(image: Image.Image, path: Path) -> None:
    """Raise an ImageError if colours of 16 bits use few of them, since Pillow keeps only their upper bytes."""
    greatest = int(np.asarray(image)[..., :3].max())
    if greatest < LEAST_UPPER_BYTE:
        raise ImageError(
            f"{path} has colours of 16 bits, all below {(greatest + 1) << 8:,} of 65,535, of which only the upper 8 "
            "bits can be read here: save it with 8 bits per colour, or in grey"
        )


def _in_bytes(image: Image.Image, path: Path) -> tuple[Image.Image, str]:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep(image, path)
    if image.has_transparency_data:
        return image.convert("LA" if image.mode == "LA" else "RGBA"), ""
    return (image, "") if image.mode == "L" else (image.convert("RGB"), "")


def _from_deep(image: Image.Image, path: Path) -> tuple[Image.Image, str]:
    """Convert grey of 16 bits to 8; values that use only 8, 10 or 12 bits are scaled accordingly."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{path} does not have values of 8 or 16 bits: convert it to PNG")
    opaque = np.ones(values.shape, bool)
    if isinstance(transparent := image.info.get("transparency"), int):
        opaque = values != transparent
    greatest = int(values.max(where=opaque, initial=0))
    bits = next((bits for bits in DEPTHS if greatest < 1 << bits), 16)
    most = (1 << bits) - 1
    grey = Image.fromarray(((values.clip(0, most).astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8))
    note = "" if bits == 16 else f"its values of 16 bits end at {greatest:,}: they are read as values of {bits} bits"
    if opaque.all():
        return grey, note
    return Image.merge("LA", (grey, Image.fromarray(np.uint8(255) * opaque))), note


def _on_paper(image: Image.Image) -> Image.Image:
    """Place a transparent image on paper of another colour than its ink, or of its own paper's colour if it has one."""
    if image.mode not in ("LA", "RGBA"):
        return image
    grey = np.asarray(image.convert("LA"))
    shown = grey[..., 0][grey[..., 1] >= 128]
    if not shown.size:
        return _composite(image, 0)
    darkest, middle, lightest = np.percentile(shown, [2, 50, 98])
    if lightest - darkest > LIGHT:  # both paper and ink
        return _composite(image, round(middle))
    return _composite(image, 255 if middle < LIGHT else 0)


def _composite(image: Image.Image, paper: int) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image
    flat = Image.alpha_composite(Image.new("RGBA", image.size, (paper,) * 3 + (255,)), image.convert("RGBA"))
    return flat.convert("L" if image.mode == "LA" else "RGB")


def _values(image: Image.Image) -> np.ndarray:
    """The values of an image, (H, W, C) float32."""
    return np.asarray(image, np.float32).reshape(image.height, image.width, -1)


def _scale(image: Image.Image, form: Preprocessing) -> np.ndarray:
    """Scale an image to the inputs of the network, with its proportions kept: (height, width, channels)."""
    factor = min(form.width / image.width, form.height / image.height)
    width, height = (max(1, round(factor * side)) for side in image.size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)  # averages the pixels that become one
    return np.asarray(scaled).reshape(height, width, form.channels)


def _remark(pixels: np.ndarray, invert: bool) -> str:
    """Return a remark if the image seems to differ from those that the network was trained on."""
    other = "leave out --invert" if invert else "try --invert"
    if pixels.min() == pixels.max():
        return f"it is of one colour throughout (transparency counts as background): {other}"
    margin = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(margin) >= LIGHT:
        return f"its margin is light, as if it were {'light on dark' if invert else 'dark on light'}: {other}"
    return ""
