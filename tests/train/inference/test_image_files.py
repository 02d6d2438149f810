"""The names on the command line stand for files, folders and pipes."""

import io
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from train.inference import image_files, images
from train.inference.artifact import Preprocessing
from train.inference.image_files import STANDARD_INPUT, ImageError, listed, opened

FORM = Preprocessing(4, 6, 1, polarity="light on dark")


@pytest.fixture
def content():
    """A PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_folder_means_its_images_in_the_order_in_which_people_count(tmp_path):
    for name in ("10.png", "2.PNG", "a.Jpeg", "1.tif", ".hidden.png", "notes.txt", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    assert [path.name for path in listed(tmp_path)] == ["1.tif", "2.PNG", "10.png", "a.Jpeg"]
    assert listed(tmp_path / "2.PNG") == [tmp_path / "2.PNG"]


def test_a_folder_without_images_says_so(tmp_path):
    (tmp_path / "more").mkdir()
    with pytest.raises(ImageError, match=r"is a folder without images \(PNG, .*; subfolders are not searched"):
        listed(tmp_path)


def test_a_named_pipe_is_read(content, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    assert images.read(path, FORM, images.Treatment(as_is=True)).pixels[3, 5, 0] == 23  # pyright: ignore[reportOptionalSubscript]
    writer.join()


def test_a_dash_is_the_standard_input(content, monkeypatch):
    monkeypatch.setattr(image_files.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    stream = opened(STANDARD_INPUT)
    assert isinstance(stream, io.BytesIO)
    assert stream.read() == content


def test_an_empty_pipe_and_an_endless_one(monkeypatch):
    with pytest.raises(ImageError, match="/dev/null is empty"):
        opened(Path("/dev/null"))
    monkeypatch.setattr(image_files, "MOST_BYTES", 1000)
    with pytest.raises(ImageError, match="/dev/zero has more than 1,000 bytes"):
        opened(Path("/dev/zero"))
