"""Image files of every kind as the network takes them, and what is said of them, and of what is none."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from train.inference import images
from train.inference.artifact import Preprocessing
from train.inference.images import ImageError, Treatment

GREY, COLOUR = Preprocessing(4, 6, 1, polarity="light on dark"), Preprocessing(4, 6, 3)
VALUES = np.array(
    [[0, 10, 20, 30, 40, 50], [60, 255, 80, 90, 100, 110], [0, 0, 0, 7, 0, 0], [1, 2, 3, 4, 5, 6]], np.uint8
)


def read(path, form, invert=False):
    """An image as it is, but scaled to fit."""
    return images.read(path, form, Treatment(as_is=True, invert=invert))


def pixels_of(picture):
    assert picture.pixels is not None, picture
    return picture.pixels


@pytest.fixture
def save(tmp_path):
    """Writes an image of VALUES or of an array; returns its path."""

    def write(name="image.png", image=VALUES, **options):
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.mark.parametrize("extension", ["png", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_grey_of_the_right_size_stays_as_it_is(extension, mode, save):
    image = Image.fromarray(VALUES).convert(mode)
    np.testing.assert_array_equal(pixels_of(read(save(f"a.{extension}", image), GREY))[..., 0], VALUES)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(mode, save):
    plain = Image.new("L", (6, 4), 90).convert(mode)
    np.testing.assert_allclose(pixels_of(read(save("a.jpeg", plain), GREY)), 90, atol=1)


def test_colour_for_a_network_of_colour(save):
    colours = np.stack([VALUES, VALUES[::-1], VALUES[:, ::-1]], -1)
    np.testing.assert_array_equal(pixels_of(read(save(image=colours), COLOUR)), colours)
    np.testing.assert_array_equal(pixels_of(read(save(), COLOUR)), np.stack([VALUES] * 3, -1))


def test_colour_for_a_network_of_grey_is_luminance(save):
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 255
    np.testing.assert_array_equal(pixels_of(read(save(image=red), GREY)), np.full((4, 6, 1), 76))  # 0.299 · 255


@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_16_bits(extension, save):
    deep = VALUES.astype(np.uint16) * 257
    np.testing.assert_array_equal(pixels_of(read(save(f"a.{extension}", deep), GREY))[..., 0], VALUES)
    np.testing.assert_array_equal(pixels_of(read(save(f"a.{extension}", deep), COLOUR))[..., 2], VALUES)


def test_16_bits_are_rounded_to_the_nearest(save):
    deep = np.full((4, 6), 10 * 257 + 128, np.uint16)
    deep[3, 5] = 65535  # so that 16 bits are used
    assert pixels_of(read(save(image=deep), GREY))[0, 0, 0] == 10
    assert pixels_of(read(save(image=np.where(deep < 65535, deep + 1, deep)), GREY))[0, 0, 0] == 11


@pytest.mark.parametrize(("bits", "greatest"), [(8, 255), (10, 1023), (12, 4095), (12, 1024), (16, 4096), (16, 65535)])
@pytest.mark.parametrize("transparency", [None, 0])
def test_16_bits_are_scaled_by_what_they_hold(bits, greatest, transparency, save):
    """Cameras and scanners write values of 10 or 12 bits into files of 16."""
    deep = np.zeros((4, 6), np.uint16)
    deep[0, 0], deep[0, 1] = greatest, 100
    options = {} if transparency is None else {"transparency": transparency}
    picture = read(save(image=deep, **options), GREY)
    np.testing.assert_array_equal(pixels_of(picture)[0, :2, 0], np.rint(deep[0, :2] * (255 / (2**bits - 1))))
    note = f"its values of 16 bits end at {greatest:,}: they are read as values of {bits} bits"
    assert picture.remark == ("" if bits == 16 else note)


def test_1_bit(save):
    image = Image.fromarray(VALUES > 50)
    np.testing.assert_array_equal(pixels_of(read(save(image=image), GREY))[..., 0], 255 * (VALUES > 50))


@pytest.mark.parametrize(("invert", "background"), [(False, 0), (True, 255)])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "P, one transparent", "16 bits, one transparent"])
def test_what_is_transparent_is_background(mode, invert, background, save):
    hole = VALUES == 0
    if mode == "16 bits, one transparent":
        path = save(image=VALUES.astype(np.uint16) * 257, transparency=0)
    elif mode == "P, one transparent":
        path = save(image=Image.fromarray(VALUES).convert("P"), transparency=0)
    elif mode == "PA":
        path = save("a.png", Image.fromarray(np.stack([VALUES, np.where(hole, 0, 255).astype(np.uint8)], -1)))
    else:
        path = save(
            image=Image.merge("LA", [Image.fromarray(a) for a in (VALUES, np.uint8(255) * ~hole)]).convert(mode)
        )
    expected = np.where(hole, background, VALUES)
    np.testing.assert_array_equal(pixels_of(read(path, GREY, invert))[..., 0], 255 - expected if invert else expected)


def test_half_transparent(save):
    half = Image.new("LA", (6, 4), (200, 128))
    assert abs(int(pixels_of(read(save(image=half), GREY))[0, 0, 0]) - 100) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_exif_orientation(orientation, extension, save):
    """The file holds the image as the camera lay; the tag says how to look at it."""
    upright = np.zeros((40, 60), np.uint8)
    upright[:20, :30], upright[20:, :30] = 250, 120
    lying = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],  # to be turned right by a quarter
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(f"a.{extension}", np.ascontiguousarray(lying), exif=exif)
    pixels = pixels_of(read(path, GREY))[..., 0].astype(int)
    np.testing.assert_allclose(pixels[::3, ::5], [[250, 0], [120, 0]], atol=16)


def test_any_size_is_averaged(save):
    stripes = np.zeros((400, 600), np.uint8)
    stripes[::2] = 100
    np.testing.assert_allclose(pixels_of(read(save(image=stripes), GREY)), 50, atol=1)
    flat = pixels_of(read(save(image=np.full((400, 600), 77, np.uint8)), GREY))
    np.testing.assert_array_equal(flat, 77)
    tiny = pixels_of(read(save(image=np.full((1, 1), 77, np.uint8)), GREY))[..., 0]
    np.testing.assert_array_equal(tiny, [[0, 77, 77, 77, 77, 0]] * 4)


@pytest.mark.parametrize(("invert", "margin", "inside"), [(False, 0, 200), (True, 0, 55)])
def test_other_proportions_are_kept(invert, margin, inside, save):
    for shape, rows, columns in (((40, 20), slice(None), slice(2, 4)), ((20, 60), slice(1, 3), slice(None))):
        expected = np.full((4, 6), margin)
        expected[rows, columns] = inside
        picture = read(save(image=np.full(shape, 200, np.uint8)), GREY, invert)
        np.testing.assert_array_equal(pixels_of(picture)[..., 0], expected)


def test_an_extreme_strip_still_has_a_pixel(save):
    assert pixels_of(read(save(image=np.full((3, 3000), 200, np.uint8)), GREY)).max() == 200


@pytest.mark.parametrize("invert", [False, True])
def test_the_wrong_polarity_is_remarked(invert, save):
    ink = np.zeros((40, 60), np.uint8)
    ink[10:30, 20:40] = 255
    right, wrong = (255 - ink, ink) if invert else (ink, 255 - ink)
    assert read(save(image=right), GREY, invert).remark == ""
    expected = (
        "its margin is light, as if it were light on dark: leave out --invert"
        if invert
        else "its margin is light, as if it were dark on light: try --invert"
    )
    assert read(save(image=wrong), GREY, invert).remark == expected
    narrow = wrong[:, 10:50]  # what fills the sides up does not count
    assert read(save(image=narrow), GREY, invert).remark == expected


def test_one_colour_is_remarked(save):
    """Black ink on nothing, laid on black."""
    path = save(image=Image.new("LA", (6, 4), (0, 0)))
    assert read(path, GREY).remark.startswith("it is of one colour throughout (transparency counts as backgr")


def test_photographs_are_of_no_polarity(save):
    for value in (0, 255):
        assert read(save(image=np.full((4, 6), value, np.uint8)), COLOUR).remark == ""


@pytest.mark.parametrize("form", [GREY, COLOUR])
def test_one_colour_is_nothing(form, save):
    picture = images.read(save(image=np.full((9, 9), 77, np.uint8)), form)
    assert picture == (None, "it is of one colour throughout", "nothing")


@pytest.mark.parametrize("paper", [0, 230])
def test_the_border_tells_the_polarity(paper, save):
    """Of a garment, say: grey stays grey, and only black and white are exchanged."""
    garment = np.full((40, 60), paper, np.uint8)
    garment[:, 20:50] = 120
    pixels = pixels_of(images.read(save(image=garment), GREY))[..., 0]
    np.testing.assert_array_equal(pixels[2, [0, 3]], [25, 135] if paper else [0, 120])
    np.testing.assert_array_equal(pixels_of(images.read(save(image=garment), COLOUR))[0, 0], [paper] * 3)


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_ink_on_nothing_lies_on_paper_of_another_colour(ink, mode, save):
    image = Image.merge("LA", [Image.new("L", (6, 4), ink), Image.fromarray(VALUES)]).convert(mode)
    np.testing.assert_allclose(pixels_of(images.read(save(image=image), GREY))[..., 0], VALUES, atol=1)


def test_a_card_with_transparent_edges_lies_on_its_own_colour(save):
    """A scan that was cut out: what is around it is no ink."""
    card = np.full((40, 60), 250, np.uint8)
    card[8:32, 18:52] = 0
    alpha = np.pad(np.full((34, 54), 255, np.uint8), 3)
    pixels = pixels_of(images.read(save(image=Image.fromarray(np.stack([card, alpha], -1))), GREY))[..., 0]
    np.testing.assert_allclose(pixels[[0, 1, 2], [0, 0, 3]], [5, 5, 245], atol=12)


def test_float_values_have_no_scale(save):
    with pytest.raises(ImageError, match=r"a\.tiff does not have values of 8 or 16 bits: convert it to PNG"):
        read(save("a.tiff", VALUES.astype(np.float32)), GREY)


def test_what_is_no_image(tmp_path, save):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "page.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # nothing is ever executed
    (tmp_path / "loop").symlink_to("loop")
    whole = save("whole.png", np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "start.png").write_bytes(whole[:4])
    for name, message in {
        "nothing.png": "there is no .*nothing.png$",
        "empty.png": "empty.png is empty$",
        "text.png": r"text.png is not an image \(PNG, JPEG, GIF, BMP, TIFF, WEBP\), or damaged at its beginning",
        "page.png": "page.png is not an image",
        "start.png": "start.png is not an image",
        "cut.png": "cut.png is damaged or cut short: ",
        ".": "cannot be read: Is a directory",
        "loop": "loop cannot be read: Too many levels of symbolic links",
        "whole.png/a": "whole.png/a cannot be read: Not a directory",
    }.items():
        with pytest.raises(ImageError, match=message):
            read(tmp_path / name, GREY)


def test_more_pixels_than_anybody_needs(tmp_path, save):
    """A file of some bytes that says it is of 20,000 times 20,000 pixels."""
    content = bytearray(save().read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"bomb\.png has more than 100,000,000 pixels"):
        read(tmp_path / "bomb.png", GREY)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_damaged_file_is_an_image_or_an_error_that_says_so(form, tmp_path):
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (20, 20), np.uint8)).save(buffer, form, exif=exif)
    path, errors = tmp_path / "image", []
    for attempt in range(150):
        content = bytearray(buffer.getvalue())
        if attempt % 2:
            content = content[: random.integers(1, len(content))]
        else:
            for _ in range(3):
                content[random.integers(len(content))] = random.integers(256)
        path.write_bytes(content)
        try:
            assert pixels_of(read(path, GREY)).shape == (4, 6, 1)
        except ImageError as error:
            errors.append(str(error))
    assert len(errors) > 20
    assert [error for error in errors if not error.startswith(str(path))] == []


def deep_png(path, values):
    """A PNG of 16 bits per colour, which Pillow reads and does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits(channels, tmp_path):
    deep = np.full((4, 6, channels), 65535)
    deep[..., :3] = np.stack([VALUES] * 3, -1).astype(int) * 257
    np.testing.assert_array_equal(pixels_of(read(deep_png(tmp_path / "a.png", deep), GREY))[..., 0], VALUES)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("greatest", [255, 1023, 4095])
def test_colours_that_use_little_of_16_bits_are_not_taken_for_nothing(channels, greatest, tmp_path):
    """Pillow keeps the upper byte of each value."""
    deep = np.full((4, 6, channels), 65535)
    deep[..., : channels - (channels != 3)] = 0
    deep[1, 1, 0] = greatest
    message = (
        r"a\.png has colours of 16 bits, all below [\d,]+ of 65,535, .*: save it with 8 bits per colour, or in grey"
    )
    with pytest.raises(ImageError, match=message):
        images.read(deep_png(tmp_path / "a.png", deep), GREY)
