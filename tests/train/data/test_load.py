import dataclasses
import re
import time

import numpy as np
import pytest

from train.data import ChecksumError, DatasetUnavailableError, IdxError, download, load
from train.data.dataset import Arrays
from train.data.published import PUBLISHED
from train.host.errors import UsageError


@pytest.fixture
def published(monkeypatch, small_set):
    """MNIST can be downloaded (the small one, from this machine)."""
    monkeypatch.setitem(PUBLISHED, "mnist", small_set)


def moved(published, url):
    archives = {k: dataclasses.replace(each, url=url + each.file_name) for k, each in published.archives.items()}
    return dataclasses.replace(published, archives=archives)


def same(dataset, arrays):
    return all(np.array_equal(getattr(dataset, field), getattr(arrays, field)) for field in Arrays._fields)


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_files_are_read_where_a_folder_is_given(name, mnist_folder, small_mnist, published, server):
    dataset = load(name, data_dir=mnist_folder)
    assert (dataset.name, dataset.source) == ("mnist", f"IDX files in {mnist_folder}")
    assert dataset.note == "not the published MNIST: every file differs by MD5 (own data, or damaged?)"
    assert same(dataset, small_mnist)
    assert same(load(name, data_dir=str(mnist_folder)), small_mnist)
    assert server.asked == []


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_a_given_folder_without_mnist_is_an_error(name, tmp_path, mnist_folder, published, server):
    with pytest.raises(FileNotFoundError, match="xdg is not a folder"):
        load(name, data_dir=tmp_path / "xdg")
    (mnist_folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="lacks t10k-labels-idx1-ubyte"):
        load(name, data_dir=mnist_folder)
    (mnist_folder / "t10k-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(IdxError, match="t10k-labels-idx1-ubyte"):
        load(name, data_dir=mnist_folder)
    assert server.asked == []


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_mnist_is_downloaded_once_into_the_cache(name, tmp_path, small_mnist, published, server):
    for _ in range(2):
        dataset = load(name)
        assert (dataset.name, dataset.source, dataset.note) == ("mnist", "tensorflow-datasets", "")
        assert same(dataset, small_mnist)
    assert len(server.asked) == 4
    assert (tmp_path / "xdg" / "jaxbn" / "mnist.arrays").is_file()


def test_the_cache_folder_may_be_chosen(tmp_path, monkeypatch, small_mnist, published, server):
    assert same(load("mnist", cache_dir=tmp_path / "chosen"), small_mnist)
    assert (tmp_path / "chosen" / "mnist.arrays").is_file()
    assert not (tmp_path / "xdg").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert same(load("mnist", cache_dir="~/chosen"), small_mnist)
    assert len(server.asked) == 4


def test_offline_mnist_is_an_error_and_auto_is_digits():
    with pytest.raises(DatasetUnavailableError, match=r"no connection to .*Pass --data-dir DIR.*or --dataset digits"):
        load("mnist")
    dataset = load("auto")
    assert (dataset.name, dataset.source) == ("digits", "bundled with scikit-learn")
    assert re.fullmatch(
        r"MNIST could not be prepared \(no connection to 127\.0\.0\.1:\d+: Connection refused\); using "
        r"scikit-learn's digits instead: for MNIST, pass --data-dir DIR with its four IDX files",
        dataset.note,
    )
    assert same(dataset, load("digits"))


def test_offline_is_known_within_five_seconds(monkeypatch, silent_url):
    monkeypatch.setitem(PUBLISHED, "mnist", moved(PUBLISHED["mnist"], silent_url))
    start = time.monotonic()
    with pytest.raises(DatasetUnavailableError, match=r"no answer from 127.0.0.1:\d+ within 4 seconds"):
        load("mnist")
    assert time.monotonic() - start < 5


def test_a_silent_server_is_a_reason_for_digits(monkeypatch, silent_url):
    monkeypatch.setitem(PUBLISHED, "mnist", moved(PUBLISHED["mnist"], silent_url))
    monkeypatch.setattr(download, "_OPEN_SECONDS", 0.1)
    dataset = load("auto")
    assert dataset.name == "digits"
    assert "no answer from" in dataset.note


def test_auto_falls_back_when_the_server_fails_but_not_on_wrong_content(published, server, archive_bytes):
    name = "t10k-images-idx3-ubyte.gz"
    server.fail(name, 503)
    dataset = load("auto")
    assert dataset.name == "digits"
    assert "answered 503 Service Unavailable for http" in dataset.note
    server.send(name, archive_bytes[name][::-1])
    with pytest.raises(ChecksumError, match=name):
        load("auto")


@pytest.mark.parametrize("name", ["digits", "iris"])
def test_bundled_sets_read_no_files(name, tmp_path):
    assert load(name, cache_dir=tmp_path / "unused").name == name
    assert not (tmp_path / "unused").exists()
    with pytest.raises(
        UsageError, match=f"{name} is bundled with scikit-learn and reads no files: leave out --data-dir "
    ):
        load(name, data_dir=tmp_path)


def test_an_unknown_name():
    with pytest.raises(
        UsageError, match="there is no dataset 'mnits'; choose one of auto, mnist, fashion_mnist, cifar10, "
    ):
        load("mnits")


@pytest.mark.parametrize(
    ("name", "title", "files"),
    [
        ("fashion_mnist", "Fashion-MNIST", "its four IDX files"),
        ("cifar10", "CIFAR-10", r"cifar-10-binary\.tar\.gz, or "),
    ],
)
def test_the_others_never_fall_back(name, title, files):
    message = f"{title} could not be prepared: no connection to .*Pass --data-dir DIR, a folder with {files}"
    with pytest.raises(DatasetUnavailableError, match=message):
        load(name)


def test_they_are_downloaded_once_into_the_cache(monkeypatch, tmp_path, publish, server, small_mnist):
    monkeypatch.setitem(PUBLISHED, "fashion_mnist", publish("fashion_mnist"))
    for _ in range(2):
        dataset = load("fashion_mnist")
        assert (dataset.name, dataset.class_names[0]) == ("fashion_mnist", "T-shirt/top")
        assert same(dataset, small_mnist)
    assert len(server.asked) == 4
    assert (tmp_path / "xdg" / "jaxbn" / "fashion_mnist.arrays").is_file()


@pytest.mark.parametrize(("name", "other"), [("fashion_mnist", "mnist"), ("mnist", "fashion_mnist")])
def test_files_of_the_same_names_are_told_apart(name, other, mnist_folder, idx_bytes):
    first = {"mnist": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9], "fashion_mnist": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]}
    labels = mnist_folder / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.array(first[other] * 2, np.uint8)))
    titles = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
    message = f"holds {titles[other]}, not {titles[name]}, whose files have the same names: --dataset {other}$"
    with pytest.raises(IdxError, match=message):
        load(name, data_dir=mnist_folder)
    assert load(other, data_dir=mnist_folder).name == other
