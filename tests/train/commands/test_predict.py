"""`predict`: what it prints of images, and says of them and of what is none."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import small_run
from PIL import Image
from scipy.special import softmax

from train.commands.export import Export, export
from train.commands.predict import Predict, Prediction, load, predict, show
from train.host.console import Console
from train.host.errors import UsageError
from train.runs import restored


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a CNN's run."""
    return small_run.write(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two images, and what the network must say of each."""
    folder = tmp_path_factory.mktemp("images")
    arrays = small_run.images_of(small_run.DIGITS, 2)
    for i, array in enumerate(arrays):
        Image.fromarray(array[..., 0]).save(folder / f"{i}.png")
    return folder, arrays


def lines_of(found, arrays, folder, top):
    logits = found.model.apply(found.state.variables, arrays / np.float32(255), train=False)
    probabilities = softmax(np.asarray(logits, np.float64), axis=-1)
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
    predict(Predict(network, (folder / "0.png", folder / "1.png"), as_is=True, runs_dir=run.parent, top=2))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines_of(restored.restore(run, run.parent), arrays, folder, 2)
    name = network if kind == "file" else run
    assert errors == (
        f"{name}: digits, 3 classes, test accuracy 87.50%; images are used as they are (--as-is), light on dark\n"
    )


def test_inverted_images_are_turned_back(run, drawn, capsys, tmp_path):
    _, arrays = drawn
    for i, array in enumerate(arrays):
        Image.fromarray(255 - array[..., 0]).save(tmp_path / f"{i}.png")
    predict(Predict(run, (tmp_path / "0.png", tmp_path / "1.png"), invert=True))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines_of(restored.restore(run, run.parent), arrays, tmp_path, 3)
    assert errors.splitlines()[0].endswith("; dark on light (--invert)")


@pytest.mark.parametrize(("invert", "said"), [(False, "87.50%"), (True, "87.50%; images are inverted (--invert)")])
def test_a_network_of_colour(invert, said, capsys, tmp_path):
    card = dataclasses.replace(small_run.DIGITS, input_shape=(12, 12, 3))
    folder = small_run.write(tmp_path / "run", card)
    (array,) = small_run.images_of(card, 1)
    Image.fromarray(255 - array if invert else array).save(tmp_path / "0.png")
    predict(Predict(folder, (tmp_path / "0.png",), invert=invert))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines_of(restored.restore(folder, tmp_path), array[None], tmp_path, 3)
    assert errors == f"{folder}: digits, 3 classes, test accuracy {said}\n"


def test_what_cannot_be_read_does_not_stop_the_others(run, drawn, capsys, tmp_path):
    folder, arrays = drawn
    (tmp_path / "bad.png").write_text("no image")
    files = (tmp_path / "bad.png", folder / "0.png", tmp_path / "none.png", folder / "1.png")
    with pytest.raises(UsageError, match=r"^2 of 4 images could not be read$"):
        predict(Predict(run, files, as_is=True))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines_of(restored.restore(run, run.parent), arrays, folder, 3)
    assert [line[:40] for line in errors.splitlines()[1:]] == [
        line[:40] for line in (f"error: {tmp_path}/bad.png is not an image", f"error: there is no {tmp_path}/none.png")
    ]


def test_nothing_but_what_cannot_be_read(run, capsys, tmp_path):
    with pytest.raises(UsageError, match="1 of 1 image could not be read"):
        predict(Predict(run, (tmp_path / "none.png",)))
    assert capsys.readouterr().out == ""


def test_remarks_are_said(run, capsys, tmp_path):
    Image.new("L", (12, 12), 255).save(tmp_path / "white.png")
    predict(Predict(run, (tmp_path / "white.png",), as_is=True))
    assert f"note: {tmp_path / 'white.png'}: it is of one colour throughout" in capsys.readouterr().err


def test_what_shows_no_digit_gets_a_phrase_and_a_note_instead_of_a_number(run, drawn, capsys, tmp_path):
    folder, _ = drawn
    Image.new("L", (30, 30), 255).save(tmp_path / "white.png")
    predict(Predict(run, (tmp_path / "white.png", folder / "0.png"), as_is=False))
    output, errors = capsys.readouterr()
    assert [line.split("\t")[:2] for line in output.splitlines()] == [
        [str(tmp_path / "white.png"), "nothing"],
        [str(folder / "0.png"), output.splitlines()[1].split("\t")[1]],
    ]
    assert output.splitlines()[0].count("\t") == 1
    assert errors.splitlines()[1:] == [f"note: {tmp_path / 'white.png'}: it is of one colour throughout"]


def test_several_digits_are_not_given_a_number(tmp_path, capsys):
    folder = small_run.write(tmp_path / "run", dataclasses.replace(small_run.DIGITS, input_shape=(28, 28, 1)))
    page = np.full((60, 90), 255, np.uint8)
    page[10:50, 20:26] = page[10:50, 60:66] = 0
    Image.fromarray(page).save(tmp_path / "eleven.png")
    predict(Predict(folder, (tmp_path / "eleven.png",)))
    output, errors = capsys.readouterr()
    assert output == f"{tmp_path / 'eleven.png'}\tseveral digits\n"
    assert errors.splitlines() == [
        f"{folder}: digits, 3 classes, test accuracy 87.50%; digits are cropped and centred, polarity detected "
        "from the border",
        f"note: {tmp_path / 'eleven.png'}: it shows 2 digits or more: give each an image of its own",
    ]


def test_a_folder_is_its_images(run, drawn, capsys, tmp_path):
    folder, arrays = drawn
    predict(Predict(run, (folder,), as_is=True))
    assert capsys.readouterr().out.splitlines() == lines_of(restored.restore(run, run.parent), arrays, folder, 3)
    with pytest.raises(UsageError, match=r"^1 of 3 images could not be read$"):
        predict(Predict(run, (tmp_path, folder)))
    assert f"error: {tmp_path} is a folder without images" in capsys.readouterr().err


def test_a_network_that_takes_no_images(tmp_path):
    folder = small_run.write(tmp_path / "iris", small_run.IRIS, small_run.MLP)
    with pytest.raises(UsageError, match="iris was trained on iris: it takes 4 numbers, not images"):
        predict(Predict(folder, (tmp_path / "a.png",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ()}, "there is nothing to predict: pass one or more image files, or a folder of them"),
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
    blank = Prediction(Path("blank.png"), ("nothing",), ())
    show(console, [Prediction(Path("a[b].png"), ("7", "1"), (0.75, 0.25)), blank])
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if ".png" in line]
    assert rows == [["a[b].png", "7", "75.00%", "1 25.00%"], ["blank.png", "nothing", "", ""]]
