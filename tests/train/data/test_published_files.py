"""Files that are given, in the forms that people have them: read, and compared with what is published.

JAXBN_FLIPS says how many damages are tried of each archive (40 by default).
"""

import dataclasses
import gzip
import hashlib
import os
import random
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from train.data import CifarError, IdxError, cifar10, idx, load
from train.data.card import DataCard
from train.data.cifar10_files import PIXELS
from train.data.published import PUBLISHED

FLIPS = int(os.environ.get("JAXBN_FLIPS", "40"))
REAL = Path(os.environ.get("JAXBN_MNIST_DIR", Path(__file__).parents[4] / "shared" / "data" / "mnist"))
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
BINARY = [f"{batch}.bin" for batch in cifar10.BATCHES]


@pytest.fixture
def files(small_mnist, idx_bytes):
    """The four files of the small MNIST, by name."""
    return dict(zip(NAMES, map(idx_bytes, small_mnist), strict=True))


def put(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


PLACES = {
    "torchvision's root": lambda name: f"MNIST/raw/{name}",
    "torchvision's folder": lambda name: f"raw/{name}.gz",
    "a folder of the same name": lambda name: f"{name}/{name}",
    "a folder of the same name, spelt otherwise": lambda name: f"{name}/{name.replace('-idx', '.idx')}",
    "capitals": lambda name: f"{name.upper()}.GZ",
}


@pytest.mark.parametrize("place", PLACES)
def test_mnist_is_read_where_it_usually_lies(place, files, small_mnist, tmp_path):
    packed = {PLACES[place](name): content for name, content in files.items()}
    put(tmp_path, {n: gzip.compress(c) if n.casefold().endswith(".gz") else c for n, c in packed.items()})
    for got, expected in zip(idx.read_folder(tmp_path), small_mnist, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_fashion_mnist_lies_in_another_folder_of_torchvision(files, tmp_path):
    put(tmp_path, {f"FashionMNIST/raw/{name}": content for name, content in files.items()})
    assert load("fashion_mnist", data_dir=tmp_path).name == "fashion_mnist"
    with pytest.raises(FileNotFoundError, match=r"MNIST takes four IDX files; the folder holds FashionMNIST$"):
        load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4" + bytes(99), "this is another format: a zip archive: unpack it"),
        (b"\n<html><body>404 and so on", "this is another format: a web page: the download went wrong"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "this is another format: a pointer of Git LFS, not the file itself",
        ),
        (b"\x1f\x9d" + bytes(99), r"this is another format: a file of compress \(\.Z\): unpack it"),
        (b"\0\0\x0d\3" + bytes(99), "this is another format: IDX of 3 dimensions, of floats"),
        (b"\0\0\x08\2" + bytes(99), "this is another format: IDX of 2 dimensions, of unsigned bytes"),
        (b"anything else, and long", "this is another format"),
    ],
)
def test_another_form_is_called_by_its_name(content, message, tmp_path):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(IdxError, match=message):
        idx.read_images(tmp_path / "images")


def test_files_that_differ_from_the_published_ones_are_named(files, tmp_path, monkeypatch):
    """A digest a file: one flipped bit of a plain file has no other sign."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setitem(PUBLISHED, "mnist", dataclasses.replace(PUBLISHED["mnist"], md5=md5))
    put(tmp_path, files)
    dataset = load("mnist", data_dir=tmp_path)
    assert (dataset.published, dataset.note) == (True, "")
    assert dataset.card.published is True
    draw = random.Random(0)
    for _ in range(FLIPS):
        name = draw.choice(NAMES)
        changed = bytearray(files[name])
        byte = draw.randrange(16 if "images" in name else 8, len(changed))
        changed[byte] = changed[byte] ^ 1
        if max(changed[8:]) > 9 and "labels" in name:
            continue
        (tmp_path / name).write_bytes(changed)
        dataset = load("mnist", data_dir=tmp_path)
        assert dataset.note == f"not the published MNIST: {name} differs by MD5 (own data, or damaged?)"
        assert dataset.card.published is False
        (tmp_path / name).write_bytes(files[name])


def test_a_look_alike_is_known_as_one(files, tmp_path):
    put(tmp_path, files)
    dataset = load("mnist", data_dir=tmp_path)
    assert dataset.note == "not the published MNIST: every file differs by MD5 (own data, or damaged?)"
    assert dataset.card.published is False
    assert load("digits").published is None


def test_a_card_is_the_same_wherever_its_data_come_from():
    cards = [DataCard("a", (1,), "uint8", ("b",), "0", published) for published in (True, False, None)]
    assert cards[0] == cards[1] == cards[2]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real MNIST is not here: set JAXBN_MNIST_DIR")
def test_the_real_mnist_is_the_published_one():
    dataset = load("mnist", data_dir=REAL)
    assert (dataset.published, dataset.note) == (True, "")


def binary_files(count=4):
    random = np.random.default_rng(0)
    records = random.integers(0, 256, (len(BINARY), count, 1 + PIXELS), np.uint8)
    records[..., 0] %= 10
    return dict(zip(BINARY, (each.tobytes() for each in records), strict=True))


def pack(path, files, mode):
    folder = path.parent / "to pack"
    put(folder, files)
    with tarfile.open(path, mode) as archive:
        archive.add(folder, "cifar-10-batches-bin")


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("cifar-10-binary.tar", "w"),
        ("cifar-10-binary.tgz", "w:gz"),
        ("CIFAR-10-BINARY.TAR.GZ", "w:gz"),
        ("cifar-10-binary.tar.gz", "w"),  # as some browsers save it
        ("cifar-10-binary.tar.bz2", "w:bz2"),
        ("cifar-10-binary.tar.xz", "w:xz"),
        ("cifar-10-batches-bin.tar.gz", "w:gz"),
    ],
)
def test_archives_of_other_names_and_compressions_are_read(name, mode, tmp_path):
    files = binary_files()
    pack(tmp_path / name, files, mode)
    dataset = load("cifar10", data_dir=tmp_path)
    first, _ = cifar10.read_binary("file", files[BINARY[0]])
    np.testing.assert_array_equal(dataset.train_inputs[:4], first)
    assert dataset.source == str(tmp_path / name)


def test_archives_of_other_things_are_not_called_damaged(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(b"PK\3\4" + bytes(999))
    with pytest.raises(CifarError, match=r"cifar-10-binary\.tar\.gz: this is a zip archive: unpack it$"):
        load("cifar10", data_dir=tmp_path)


def damage(content, draw):
    """A flipped bit, a byte, a piece of zeros, one that is missing, or the end."""
    changed, at = bytearray(content), draw.randrange(len(content))
    match draw.randrange(5):
        case 0:
            changed[at] ^= 1 << draw.randrange(8)
        case 1:
            changed[at] = draw.randrange(256)
        case 2:
            changed[at : at + 64] = bytes(len(changed[at : at + 64]))
        case 3:
            del changed[at : at + draw.randrange(1, 64)]
        case 4:
            del changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_no_damaged_archive_gives_other_data(compression, tmp_path):
    path = tmp_path / f"cifar-10-binary.tar.{compression}"
    pack(path, binary_files(1), f"w:{compression}")
    whole, draw, found = path.read_bytes(), random.Random(0), Counter()
    expected = load("cifar10", data_dir=tmp_path).card
    for _ in range(FLIPS):
        path.write_bytes(damage(whole, draw))
        try:
            dataset = load("cifar10", data_dir=tmp_path)
        except CifarError as error:
            found["refused"] += str(error).startswith(str(path))
        else:
            assert dataset.card == expected
            found["harmless"] += 1
    print(dict(found))  # pytest -rP shows it
    assert found["refused"] > 0.8 * FLIPS


def test_the_files_of_cifar10_are_compared_with_the_published_ones(tmp_path, monkeypatch):
    put(tmp_path / "cifar-10-batches-bin", binary_files())
    dataset = load("cifar10", data_dir=tmp_path)
    assert dataset.published is False
    assert dataset.note == "not the published CIFAR-10, whose files hold 10,000 images each: these hold 4"
    monkeypatch.setattr(cifar10, "_EACH", 4)
    dataset = load("cifar10", data_dir=tmp_path)
    assert (dataset.published, dataset.note) == (None, "")  # no digest of these files is known
    path = tmp_path / "a" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    pack(path, binary_files(), "w:gz")
    dataset = load("cifar10", data_dir=path.parent)
    assert dataset.published is None
    assert dataset.note == (
        "cifar-10-binary.tar.gz is not the published archive (by its SHA-256): packed again, or other data"
    )
    archive = dataclasses.replace(
        PUBLISHED["cifar10"].archives["all"], sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    monkeypatch.setitem(PUBLISHED, "cifar10", dataclasses.replace(PUBLISHED["cifar10"], archives={"all": archive}))
    assert load("cifar10", data_dir=path.parent).published is True


def test_pickles_of_cifar10_are_compared_one_by_one(tmp_path, monkeypatch):
    import pickle

    random_ = np.random.default_rng(0)
    contents = {
        batch: pickle.dumps({"data": random_.integers(0, 256, (2, PIXELS), np.uint8), "labels": [1, 2]})
        for batch in cifar10.BATCHES
    }
    md5 = {batch: hashlib.md5(content).hexdigest() for batch, content in contents.items()}
    monkeypatch.setattr(cifar10, "_EACH", 2)
    monkeypatch.setitem(PUBLISHED, "cifar10", dataclasses.replace(PUBLISHED["cifar10"], md5=md5))
    put(tmp_path, {f"{batch}.pkl": content for batch, content in contents.items()})
    assert load("cifar10", data_dir=tmp_path).published is True
    for batch in ("data_batch_2", "test_batch"):
        (tmp_path / f"{batch}.pkl").write_bytes(contents["data_batch_1"])
    dataset = load("cifar10", data_dir=tmp_path)
    assert dataset.published is False
    assert dataset.note == (
        "not the published CIFAR-10: data_batch_2, test_batch differ by MD5 (own data, or damaged?)"
    )
