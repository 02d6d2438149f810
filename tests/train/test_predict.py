"""Image files of every kind as the network takes them, and what is said of them, and of what is none."""

import dataclasses
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import small_run
from PIL import Image

from train import classify, images, restored
from train.artifact import Preprocessing
from train.console import Console
from train.errors import UsageError
from train.export import Export, export
from train.images import ImageError
from train.predict import Predict, Prediction, load, predict, show

GREY, COLOUR = Preprocessing(4, 6, 1, polarity="light on dark"), Preprocessing(4, 6, 3)
VALUES = np.array(
    [[0, 10, 20, 30, 40, 50], [60, 255, 80, 90, 100, 110], [0, 0, 0, 7, 0, 0], [1, 2, 3, 4, 5, 6]], np.uint8
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a CNN's run."""
    return small_run.write(tmp_path_factory.mktemp("runs") / "run")


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
    np.testing.assert_array_equal(images.read(save(f"a.{extension}", image), GREY).pixels[..., 0], VALUES)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(mode, save):
    plain = Image.new("L", (6, 4), 90).convert(mode)
    np.testing.assert_allclose(images.read(save("a.jpeg", plain), GREY).pixels, 90, atol=1)


def test_colour_for_a_network_of_colour(save):
    colours = np.stack([VALUES, VALUES[::-1], VALUES[:, ::-1]], -1)
    np.testing.assert_array_equal(images.read(save(image=colours), COLOUR).pixels, colours)
    np.testing.assert_array_equal(images.read(save(), COLOUR).pixels, np.stack([VALUES] * 3, -1))


def test_colour_for_a_network_of_grey_is_luminance(save):
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 255
    np.testing.assert_array_equal(images.read(save(image=red), GREY).pixels, np.full((4, 6, 1), 76))  # 0.299 · 255


@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_16_bits(extension, save):
    deep = VALUES.astype(np.uint16) * 257
    np.testing.assert_array_equal(images.read(save(f"a.{extension}", deep), GREY).pixels[..., 0], VALUES)
    np.testing.assert_array_equal(images.read(save(f"a.{extension}", deep), COLOUR).pixels[..., 2], VALUES)


def test_16_bits_are_rounded_to_the_nearest(save):
    deep = np.full((4, 6), 10 * 257 + 128, np.uint16)
    assert images.read(save(image=deep), GREY).pixels[0, 0, 0] == 10
    assert images.read(save(image=deep + 1), GREY).pixels[0, 0, 0] == 11


def test_1_bit(save):
    image = Image.fromarray(VALUES > 50)
    np.testing.assert_array_equal(images.read(save(image=image), GREY).pixels[..., 0], 255 * (VALUES > 50))


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
    np.testing.assert_array_equal(
        images.read(path, GREY, invert).pixels[..., 0], 255 - expected if invert else expected
    )


def test_half_transparent(save):
    half = Image.new("LA", (6, 4), (200, 128))
    assert abs(int(images.read(save(image=half), GREY).pixels[0, 0, 0]) - 100) <= 1


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
    pixels = images.read(path, GREY).pixels[..., 0].astype(int)
    np.testing.assert_allclose(pixels[::3, ::5], [[250, 0], [120, 0]], atol=16)


def test_any_size_is_averaged(save):
    stripes = np.zeros((400, 600), np.uint8)
    stripes[::2] = 100
    np.testing.assert_allclose(images.read(save(image=stripes), GREY).pixels, 50, atol=1)
    flat = images.read(save(image=np.full((400, 600), 77, np.uint8)), GREY).pixels
    np.testing.assert_array_equal(flat, 77)
    tiny = images.read(save(image=np.full((1, 1), 77, np.uint8)), GREY).pixels[..., 0]
    np.testing.assert_array_equal(tiny, [[0, 77, 77, 77, 77, 0]] * 4)


@pytest.mark.parametrize(("invert", "margin", "inside"), [(False, 0, 200), (True, 0, 55)])
def test_other_proportions_are_kept(invert, margin, inside, save):
    for shape, rows, columns in (((40, 20), slice(None), slice(2, 4)), ((20, 60), slice(1, 3), slice(None))):
        expected = np.full((4, 6), margin)
        expected[rows, columns] = inside
        picture = images.read(save(image=np.full(shape, 200, np.uint8)), GREY, invert)
        np.testing.assert_array_equal(picture.pixels[..., 0], expected)


def test_an_extreme_strip_still_has_a_pixel(save):
    assert images.read(save(image=np.full((3, 3000), 200, np.uint8)), GREY).pixels.max() == 200


@pytest.mark.parametrize("invert", [False, True])
def test_the_wrong_polarity_is_remarked(invert, save):
    ink = np.zeros((40, 60), np.uint8)
    ink[10:30, 20:40] = 255
    right, wrong = (255 - ink, ink) if invert else (ink, 255 - ink)
    assert images.read(save(image=right), GREY, invert).remark == ""
    expected = (
        "its margin is light, as if it were light on dark: leave out --invert"
        if invert
        else "its margin is light, as if it were dark on light: try --invert"
    )
    assert images.read(save(image=wrong), GREY, invert).remark == expected
    narrow = wrong[:, 10:50]  # what fills the sides up does not count
    assert images.read(save(image=narrow), GREY, invert).remark == expected


def test_one_colour_is_remarked(save):
    """Black ink on nothing, laid on black."""
    path = save(image=Image.new("LA", (6, 4), (0, 0)))
    assert images.read(path, GREY).remark.startswith("it is of one colour throughout (transparency counts as backgr")


def test_photographs_are_of_no_polarity(save):
    for value in (0, 255):
        assert images.read(save(image=np.full((4, 6), value, np.uint8)), COLOUR).remark == ""


def test_float_values_have_no_scale(save):
    with pytest.raises(ImageError, match=r"a\.tiff does not have values of 8 or 16 bits: convert it to PNG"):
        images.read(save("a.tiff", VALUES.astype(np.float32)), GREY)


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
        "text.png": r"text.png is no image \(PNG, JPEG, GIF, BMP, TIFF, WEBP\), or damaged at its beginning",
        "page.png": "page.png is no image",
        "start.png": "start.png is no image",
        "cut.png": "cut.png is damaged or cut short: ",
        ".": r"is a folder: name the images in it, as in .*/\*\.png",
        "loop": "loop cannot be read: Too many levels of symbolic links",
        "whole.png/a": "whole.png/a cannot be read: Not a directory",
    }.items():
        with pytest.raises(ImageError, match=message):
            images.read(tmp_path / name, GREY)


def test_more_pixels_than_anybody_needs(tmp_path, save):
    """A file of some bytes that says it is of 20,000 times 20,000 pixels."""
    content = bytearray(save().read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"bomb\.png is of more than 100,000,000 pixels"):
        images.read(tmp_path / "bomb.png", GREY)


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
            assert images.read(path, GREY).pixels.shape == (4, 6, 1)
        except ImageError as error:
            errors.append(str(error))
    assert len(errors) > 20
    assert [error for error in errors if not error.startswith(str(path))] == []


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two images, and what the network must say of each."""
    folder = tmp_path_factory.mktemp("images")
    arrays = small_run.images_of(small_run.DIGITS, 2)
    for i, array in enumerate(arrays):
        Image.fromarray(array[..., 0]).save(folder / f"{i}.png")
    return folder, arrays


def lines_of(found, arrays, folder, top):
    probabilities = classify.softmax(
        np.asarray(
            found.model.apply(
                {"params": found.state.params, "batch_stats": found.state.batch_stats},
                arrays / np.float32(255),
                train=False,
            )
        )
    )
    lines = []
    for i, row in enumerate(probabilities):
        best = np.argsort(-row)[:top]
        lines.append("\t".join([str(folder / f"{i}.png"), *(f"{'abc'[k]}\t{row[k]:.4f}" for k in best)]))
    return lines


@pytest.mark.parametrize("kind", ["folder", "name", "file"])
def test_predictions_of_a_run_and_of_its_export(kind, run, drawn, capsys, tmp_path):
    folder, arrays = drawn
    network = {"folder": run, "name": run.relative_to(run.parent), "file": tmp_path / "network.jaxbn"}[kind]
    if kind == "file":
        export(Export(run, output=network))
    capsys.readouterr()
    predict(Predict(network, (folder / "0.png", folder / "1.png"), runs_dir=run.parent, top=2))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines_of(restored.restore(run, run.parent), arrays, folder, 2)
    name = network if kind == "file" else run
    assert errors == (
        f"{name}: digits, 3 classes, test accuracy 87.50%; images are taken to be light on dark (else: --invert)\n"
    )


def test_inverted_images_are_turned_back(run, drawn, capsys, tmp_path):
    _, arrays = drawn
    for i, array in enumerate(arrays):
        Image.fromarray(255 - array[..., 0]).save(tmp_path / f"{i}.png")
    predict(Predict(run, (tmp_path / "0.png", tmp_path / "1.png"), invert=True))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines_of(restored.restore(run, run.parent), arrays, tmp_path, 3)
    assert errors.splitlines()[0].endswith("images are taken to be dark on light (--invert)")


@pytest.mark.parametrize(("invert", "said"), [(False, "87.50%"), (True, "87.50%; images are inverted (--invert)")])
def test_a_network_of_colour(invert, said, capsys, tmp_path):
    card = dataclasses.replace(small_run.DIGITS, input_shape=(12, 12, 3))
    folder = small_run.write(tmp_path / "run", card)
    (array,) = small_run.images_of(card, 1)
    Image.fromarray(255 - array if invert else array).save(tmp_path / "0.png")
    predict(Predict(folder, (tmp_path / "0.png",), invert))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines_of(restored.restore(folder, tmp_path), array[None], tmp_path, 3)
    assert errors == f"{folder}: digits, 3 classes, test accuracy {said}\n"


def test_what_cannot_be_read_does_not_stop_the_others(run, drawn, capsys, tmp_path):
    folder, arrays = drawn
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(UsageError, match=r"^2 of 4 could not be read$"):
        predict(Predict(run, (tmp_path / "bad.png", folder / "0.png", tmp_path / "none.png", folder / "1.png")))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines_of(restored.restore(run, run.parent), arrays, folder, 3)
    assert [line[:40] for line in errors.splitlines()[1:]] == [
        line[:40] for line in (f"error: {tmp_path}/bad.png is no image", f"error: there is no {tmp_path}/none.png")
    ]


def test_nothing_but_what_cannot_be_read(run, capsys, tmp_path):
    with pytest.raises(UsageError, match="1 of 1 could not be read"):
        predict(Predict(run, (tmp_path / "none.png",)))
    assert capsys.readouterr().out == ""


def test_remarks_are_said(run, capsys, tmp_path):
    Image.new("L", (12, 12), 255).save(tmp_path / "white.png")
    predict(Predict(run, (tmp_path / "white.png",)))
    assert f"note: {tmp_path / 'white.png'}: it is of one colour throughout" in capsys.readouterr().err


def test_a_network_that_takes_no_images(tmp_path):
    folder = small_run.write(tmp_path / "iris", small_run.IRIS, small_run.MLP)
    with pytest.raises(UsageError, match="iris has learned from iris: it takes 4 numbers, no images"):
        predict(Predict(folder, (tmp_path / "a.png",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ()}, "there is nothing to predict: name one or more image files"),
        ({"top": 0}, "--top must be at least 1; got 0"),
    ],
)
def test_options_are_checked(options, message, run, tmp_path):
    with pytest.raises(UsageError, match=message):
        predict(Predict(**{"network": run, "images": (tmp_path / "a.png",)} | options))


def test_no_such_network(tmp_path):
    with pytest.raises(UsageError, match="there is no nothing: neither a file from `export`, nor a run, nor one of"):
        load(Path("nothing"), tmp_path)


def test_a_damaged_run_is_not_used(tmp_path):
    folder = small_run.write(tmp_path / "run")
    file = next(path for path in (folder / "checkpoints").rglob("*") if path.name == "position.json")
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(UsageError):
        load(folder, tmp_path)


def test_a_terminal_gets_a_table():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    show(console, [Prediction(Path("a[b].png"), ("7", "1"), (0.75, 0.25))])
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    row = next(line for line in text.splitlines() if "a[b].png" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["a[b].png", "7", "75.00%", "1 25.00%"]
