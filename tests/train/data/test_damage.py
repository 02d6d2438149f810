"""Damage to the files of the data, cached or given: caught, or harmless since the file is not read. Never wrong data.

JAXBN_FLIPS says how many flipped bits are tried of each folder (40 by default).
"""

import os
import random
from collections import Counter

import numpy as np
import pytest

from train.data import IdxError, idx, load, preparation
from train.data.download import fetch
from train.data.preparation import from_tensorflow_datasets

FLIPS = int(os.environ.get("JAXBN_FLIPS", "40"))
CAUGHT, HARMLESS = "caught", "harmless"


@pytest.fixture
def cached(tmp_path, small_set):
    """A cache folder after MNIST was prepared in it: arrays, archives, the files of tensorflow-datasets, a lock."""
    from_tensorflow_datasets(small_set, tmp_path / "cache")
    return tmp_path / "cache"


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def kind(folder, path):
    return path.relative_to(folder).parts[0]


def same(dataset, arrays):
    return all(np.array_equal(getattr(dataset, field), array) for field, array in arrays._asdict().items())


def flipped(path, draw):
    content = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


def drawn(folder, draw):
    """FLIPS files, each one while they last, then each kind as often as another; with one flipped bit each."""
    paths = [path for path in files_of(folder) if path.stat().st_size]
    sizes = Counter()
    for path in paths:
        sizes[kind(folder, path)] += path.stat().st_size
    weights = [path.stat().st_size / sizes[kind(folder, path)] for path in paths]
    paths += draw.choices(paths, weights, k=max(FLIPS - len(paths), 0))
    return [(path, flipped(path, draw)) for path in paths]


@pytest.fixture
def outcome(cached, small_set, small_mnist, monkeypatch):
    """The result of loading with a changed file: the right data, with or without a note on the damage."""
    monkeypatch.setattr(preparation, "_prepare", lambda *_: small_mnist)  # what is rebuilt is tested below

    def load_with(path, content):
        whole = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        dataset = from_tensorflow_datasets(small_set, cached)
        assert same(dataset, small_mnist)
        path.write_bytes(whole)
        return CAUGHT if "is damaged: its content does not match" in dataset.note else HARMLESS

    return load_with


def test_flipped_bits_in_the_cache(cached, outcome):
    found = Counter()
    for path, content in drawn(cached, random.Random(0)):
        found[kind(cached, path), outcome(path, content)] += 1
    print({f"{name}, {what}": count for (name, what), count in found.items()})  # pytest -rP shows it
    assert {name for name, what in found if what == CAUGHT} == {"mnist.arrays"}
    assert {name for name, what in found if what == HARMLESS} == {"mnist", "tensorflow_datasets"}  # not read any more


def test_files_of_the_cache_cut_emptied_removed_or_swapped(cached, outcome):
    for path in files_of(cached):
        content = path.read_bytes()
        expected = CAUGHT if path.name == "mnist.arrays" else HARMLESS
        for other in {content[:-1], content[: len(content) // 2], b"", content + b"\0"} - {content}:
            assert outcome(path, other) == expected
        assert outcome(path, None) == HARMLESS  # made again
        if path.name != "mnist.arrays":
            assert outcome(cached / "mnist.arrays", content) == CAUGHT
    (cached / "more").write_text("another file")
    assert outcome(cached / "more", b"") == HARMLESS


def test_flipped_bits_in_the_archives_are_caught_when_they_are_read(cached, small_set, archive_bytes, server):
    """By their SHA-256: they are fetched again."""
    draw = random.Random(1)
    for _ in range(FLIPS):
        archive = draw.choice(list(small_set.archives.values()))
        path = cached / "mnist" / archive.file_name
        path.write_bytes(flipped(path, draw))
        server.asked.clear()
        assert fetch(archive, cached / "mnist").read_bytes() == archive_bytes[archive.file_name]
        assert server.asked == [archive.file_name]


def test_what_tensorflow_datasets_prepared_earlier_is_never_read(cached, small_set, small_mnist):
    """Without our own arrays all is done again, from archives that are verified; every old file has a flipped bit."""
    draw = random.Random(2)
    for path in files_of(cached / "tensorflow_datasets"):
        if path.stat().st_size:
            path.write_bytes(flipped(path, draw))
    (cached / "mnist.arrays").unlink()
    assert same(from_tensorflow_datasets(small_set, cached), small_mnist)


def test_flipped_bits_in_gzipped_files_that_were_given(mnist_folder, small_mnist):
    """Gzip's CRC-32 knows of every one in the content; the others are in its header, which says nothing of it."""
    found = Counter()
    for path, content in drawn(mnist_folder, random.Random(3)):
        whole = path.read_bytes()
        path.write_bytes(content)
        try:
            dataset = load("mnist", data_dir=mnist_folder)
        except IdxError as error:
            found[CAUGHT] += str(error).startswith(str(path))
        else:
            assert same(dataset, small_mnist)
            found[HARMLESS] += 1
        path.write_bytes(whole)
    print(dict(found))
    assert found[CAUGHT] > 0.8 * FLIPS


def test_every_flipped_bit_of_a_header_is_caught(tmp_path, idx_bytes, small_mnist):
    """Plain IDX files have no digest, so only the header, the length and the range of the labels can show damage."""
    for name, array, read in (
        ("images", small_mnist.test_inputs, idx.read_images),
        ("labels", small_mnist.test_labels, idx.read_labels),
    ):
        whole = idx_bytes(array)
        for bit in range(8 * (16 if name == "images" else 8)):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(changed)
            with pytest.raises(IdxError, match=name):
                read(tmp_path / name)
