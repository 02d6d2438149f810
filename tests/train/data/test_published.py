import dataclasses
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.image_classification import cifar, mnist

from train import data
from train.data import PUBLISHED, ChecksumError, DatasetUnavailableError, builders
from train.data.dataset import Arrays
from train.data.preparation import from_tensorflow_datasets
from train.data.published import Published

NAMES = [
    f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


STOCK = {"mnist": mnist.MNIST, "fashion_mnist": mnist.FashionMNIST, "cifar10": cifar.Cifar10}
VERSIONS = {"mnist": "3.0.1", "fashion_mnist": "3.0.1", "cifar10": "3.0.2"}


@pytest.fixture(params=PUBLISHED)
def each(request, publish, small_mnist, small_cifar10) -> tuple[Published, Arrays]:
    """Each dataset in turn, published by the local server, and what it must become."""
    return publish(request.param), small_cifar10 if request.param == "cifar10" else small_mnist


def check(dataset, expected, note=""):
    """The dataset is the expected one to the byte, in the order of the archives."""
    assert (dataset.source, dataset.note) == ("tensorflow-datasets", note)
    assert dataset.class_names == PUBLISHED[dataset.name].class_names
    for field in Arrays._fields:
        assert getattr(dataset, field).dtype == getattr(expected, field).dtype
        np.testing.assert_array_equal(getattr(dataset, field), getattr(expected, field))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_archives_are_the_official_ones(name, monkeypatch):
    monkeypatch.undo()  # of `alone`, which moves them to this machine
    published, official = PUBLISHED[name], STOCK[name].url_infos
    assert official is not None
    assert {archive.url for archive in published.archives.values()} == set(official)
    for archive in published.archives.values():
        assert (archive.size, archive.sha256) == (official[archive.url].size, official[archive.url].checksum)
    if name != "cifar10":
        assert [archive.file_name for archive in published.archives.values()] == NAMES


def test_prepared_once_then_read_from_the_cache(each, folder, server):
    published, arrays = each
    names = [archive.file_name for archive in published.archives.values()]
    check(from_tensorflow_datasets(published, folder), arrays)
    assert server.asked == names
    server.close()
    check(from_tensorflow_datasets(published, folder), arrays)
    assert server.asked == names


def test_a_stock_tensorflow_datasets_reads_what_was_prepared(each, folder):
    published, arrays = each
    name = published.name
    from_tensorflow_datasets(published, folder)
    prepared = tfds.builder_from_directory(folder / "tensorflow_datasets" / name / VERSIONS[name]).info
    own = STOCK[name](data_dir=folder / "elsewhere").info
    assert (prepared.full_name, repr(prepared.features)) == (own.full_name, repr(own.features))
    train = tfds.data_source(name, split="train", data_dir=folder / "tensorflow_datasets", download=False)
    records = list(cast("Any", train))
    labels = [record["label"] for record in records]
    assert sorted(labels) == sorted(arrays.train_labels)
    assert labels != list(arrays.train_labels)  # stored in another order, so `check` sees that it is restored
    if name == "cifar10":
        assert cast("Any", prepared.features)["label"].names == list(published.class_names)
        assert sorted(record["id"] for record in records) == [f"train_{i:05d}".encode() for i in range(20)]


def test_one_dataset_leaves_the_others_alone(publish, folder, small_mnist, small_cifar10):
    for name, arrays in (("mnist", small_mnist), ("cifar10", small_cifar10)):
        check(from_tensorflow_datasets(publish(name), folder), arrays)
    (folder / "mnist.arrays").unlink()
    check(from_tensorflow_datasets(publish("mnist"), folder), small_mnist)
    stock = tfds.data_source("cifar10", split="test", data_dir=folder / "tensorflow_datasets", download=False)
    assert len(cast("Any", stock)) == 4


def test_no_network_is_given_up_soon(each, folder, closed_url):
    published, arrays = each
    archives = {k: dataclasses.replace(a, url=closed_url + a.file_name) for k, a in published.archives.items()}
    with pytest.raises(
        DatasetUnavailableError,
        match=rf"{published.title} could not be prepared: no connection to 127.0.0.1:\d+: Connection refused. "
        rf"Pass --data-dir DIR, a folder with {re.escape(published.files)}, or --dataset digits",
    ):
        from_tensorflow_datasets(dataclasses.replace(published, archives=archives), folder)
    check(from_tensorflow_datasets(published, folder), arrays)


def bodies(name, archive_bytes, cifar10_bytes):
    """The last archive's name and content, and how many come before it."""
    contents = cifar10_bytes if name == "cifar10" else archive_bytes
    return list(contents.items())[-1], len(contents) - 1


def test_each_reports_a_server_error(each, folder, server, archive_bytes, cifar10_bytes):
    published, arrays = each
    (name, body), _ = bodies(published.name, archive_bytes, cifar10_bytes)
    server.fail(name, 500)
    with pytest.raises(
        DatasetUnavailableError,
        match=rf"^{published.title} .*answered 500 Internal Server Error for http.*{name}\. Pass",
    ):
        from_tensorflow_datasets(published, folder)
    server.send(name, body)
    check(from_tensorflow_datasets(published, folder), arrays)


def test_each_notices_a_truncated_archive(each, folder, server, archive_bytes, cifar10_bytes):
    published, arrays = each
    (name, body), _ = bodies(published.name, archive_bytes, cifar10_bytes)
    for announced in (len(body), None):
        server.send(name, body[:-20], announced=announced)
        with pytest.raises(DatasetUnavailableError, match=rf"^{published.title} could not be prepared: .*{name}"):
            from_tensorflow_datasets(published, folder)
    server.send(name, body)
    check(from_tensorflow_datasets(published, folder), arrays)


def test_each_refuses_another_archive_and_keeps_nothing_of_it(each, folder, server, archive_bytes, cifar10_bytes):
    published, arrays = each
    (name, body), before = bodies(published.name, archive_bytes, cifar10_bytes)
    server.send(name, body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(ChecksumError, match=f"{name} sent something other than the published file"):
        from_tensorflow_datasets(published, folder)
    assert len(list((folder / published.name).iterdir())) == before
    server.send(name, body)
    check(from_tensorflow_datasets(published, folder), arrays)


@pytest.mark.parametrize("at", range(4))
def test_a_server_error_at_any_file_keeps_the_files_before(folder, small_set, archive_bytes, server, small_mnist, at):
    server.fail(NAMES[at], 500)
    with pytest.raises(
        DatasetUnavailableError, match=f"answered 500 Internal Server Error for http.*{NAMES[at]}. Pass"
    ):
        from_tensorflow_datasets(small_set, folder)
    assert server.asked == NAMES[: at + 1]
    server.send(NAMES[at], archive_bytes[NAMES[at]])
    check(from_tensorflow_datasets(small_set, folder), small_mnist)
    assert server.asked == NAMES[: at + 1] + NAMES[at:]


def test_tensorflow_datasets_checks_the_archives_too(mnist_folder, small_set, tmp_path):
    field = "test_labels"
    archives = {**small_set.archives, field: dataclasses.replace(small_set.archives[field], sha256="0" * 64)}
    with pytest.raises(NonMatchingChecksumError, match="t10k-labels"):
        builders.prepare(dataclasses.replace(small_set, archives=archives), mnist_folder, tmp_path / "prepared")


def test_an_exception_while_preparing(folder, small_set, server, small_mnist, monkeypatch):
    def failing(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builders, "_png", failing)
        with pytest.raises(KeyboardInterrupt):
            from_tensorflow_datasets(small_set, folder)
    assert not (folder / "mnist.arrays").exists()
    server.close()
    check(from_tensorflow_datasets(small_set, folder), small_mnist)


def run(script: str, folder: Path, small_set: Published) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own, with `load` defined as loading the small MNIST."""
    prelude = f"""
import os, signal, sys
from pathlib import Path
from typing import Any, cast
from train.data.download import Archive
from train.data.preparation import from_tensorflow_datasets
from train.data.published import Published
def load():
    return from_tensorflow_datasets({small_set!r}, Path({str(folder)!r}))
"""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", prelude + script],
        env={**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_killed_while_preparing(folder, small_set, server, small_mnist):
    script = """
from train.data import builders
whole, count = builders._png, iter(range(60))
def png(image):
    if next(count) == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(image)
builders._png = png
load()
"""
    assert run(script, folder, small_set).returncode == -9
    prepared = folder / "tensorflow_datasets" / "mnist"
    assert [path.name[:11] for path in prepared.iterdir()] == ["incomplete."]
    server.close()
    check(from_tensorflow_datasets(small_set, folder), small_mnist)
    assert [path.name for path in prepared.iterdir()] == ["3.0.1"]


def test_killed_while_writing_the_cache(folder, small_set, small_mnist):
    folder.mkdir()
    (folder / "mnist.arrays.part").write_bytes(b"jaxbn arrays 1 sha256 ")
    check(from_tensorflow_datasets(small_set, folder), small_mnist)
    assert not (folder / "mnist.arrays.part").exists()


def test_says_nothing_and_imports_only_what_it_uses(folder, small_set):
    slow = "print(sorted({'tensorflow_datasets', 'tensorflow', 'sklearn', 'PIL', 'jax'} & set(sys.modules)))"
    first = run(f"{slow}\nload()\n{slow}", folder, small_set)
    assert first.stderr == ""
    assert first.stdout.splitlines() == ["[]", "['PIL', 'tensorflow_datasets']"]
    again = run(f"load()\n{slow}", folder, small_set)
    assert (again.stdout, again.stderr) == ("[]\n", "")


@pytest.mark.parametrize("where", [0, 30, 86, 5000, -1])
def test_a_damaged_cache_is_noticed_said_and_rebuilt(folder, small_set, server, small_mnist, where):
    from_tensorflow_datasets(small_set, folder)
    server.close()
    path = folder / "mnist.arrays"
    damaged = bytearray(path.read_bytes())
    damaged[where] ^= 16
    path.write_bytes(damaged)
    note = f"{path} is damaged: its content does not match the SHA-256 it was written with; it was rebuilt"
    check(from_tensorflow_datasets(small_set, folder), small_mnist, note=note)
    check(from_tensorflow_datasets(small_set, folder), small_mnist)


def test_a_damaged_cache_that_cannot_be_rebuilt(folder, small_set, server):
    from_tensorflow_datasets(small_set, folder)
    server.close()
    (folder / "mnist.arrays").write_bytes(b"")
    (folder / "mnist" / NAMES[3]).unlink()
    with pytest.raises(
        DatasetUnavailableError, match=r"mnist.arrays is damaged: .*; no connection to .*\. Pass --data-dir"
    ):
        from_tensorflow_datasets(small_set, folder)


def test_a_damaged_archive_is_fetched_again(folder, small_set, archive_bytes, server, small_mnist):
    (folder / "mnist").mkdir(parents=True)
    for name, body in archive_bytes.items():
        (folder / "mnist" / name).write_bytes(body if name != NAMES[0] else body[:-1])
    check(from_tensorflow_datasets(small_set, folder), small_mnist)
    assert server.asked == [NAMES[0]]


def test_of_several_that_start_at_once_one_prepares(folder, small_set, server, small_mnist):
    datasets = []
    threads = [
        threading.Thread(target=lambda: datasets.append(from_tensorflow_datasets(small_set, folder))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == NAMES
    assert len(datasets) == 3
    for dataset in datasets:
        check(dataset, small_mnist)


def test_a_cache_folder_that_cannot_be_made(tmp_path, small_set):
    (tmp_path / "file").touch()
    with pytest.raises(
        DatasetUnavailableError, match=r"the cache folder .*file/cache cannot be written .*set XDG_CACHE_HOME"
    ):
        from_tensorflow_datasets(small_set, tmp_path / "file" / "cache")


def test_without_tensorflow_datasets(folder, small_set, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delitem(sys.modules, "train.data.builders")
    monkeypatch.delattr(data, "builders")
    with pytest.raises(
        DatasetUnavailableError, match=r"import of tensorflow_datasets halted.*pip install -e '.\[train\]'"
    ):
        from_tensorflow_datasets(small_set, folder)
