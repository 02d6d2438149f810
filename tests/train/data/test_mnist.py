import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.image_classification import mnist as stock

from train import data
from train.data import ChecksumError, MnistUnavailableError, mnist, mnist_builder
from train.data.dataset import Arrays
from train.data.mnist import from_tensorflow_datasets

NAMES = [
    f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def check(dataset, expected, note=""):
    """The dataset is the expected one to the byte, in the order of the IDX files."""
    assert (dataset.name, dataset.source, dataset.note) == ("mnist", "tensorflow-datasets", note)
    assert dataset.class_names == tuple("0123456789")
    for field in Arrays._fields:
        assert getattr(dataset, field).dtype == getattr(expected, field).dtype
        np.testing.assert_array_equal(getattr(dataset, field), getattr(expected, field))


def test_the_archives_are_the_official_ones(monkeypatch):
    monkeypatch.undo()  # of `alone`, which moves them to this machine
    official = stock.MNIST.url_infos
    assert official is not None
    assert [archive.file_name for archive in mnist.ARCHIVES.values()] == NAMES
    for archive in mnist.ARCHIVES.values():
        assert (archive.size, archive.sha256) == (official[archive.url].size, official[archive.url].checksum)


def test_prepared_once_then_read_from_the_cache(folder, archives, server, small_mnist):
    check(from_tensorflow_datasets(folder, archives), small_mnist)
    assert server.asked == NAMES
    server.close()
    check(from_tensorflow_datasets(folder, archives), small_mnist)
    assert server.asked == NAMES


def test_a_stock_tensorflow_datasets_reads_what_was_prepared(folder, archives, small_mnist):
    from_tensorflow_datasets(folder, archives)
    prepared = tfds.builder_from_directory(folder / "tensorflow_datasets" / "mnist" / "3.0.1").info
    own = stock.MNIST(data_dir=folder / "elsewhere").info
    assert (prepared.full_name, repr(prepared.features)) == (own.full_name, repr(own.features))
    test = tfds.data_source("mnist", split="test", data_dir=folder / "tensorflow_datasets", download=False)
    labels = [record["label"] for record in cast("Any", test)]
    assert sorted(labels) == sorted(small_mnist.test_labels)
    assert labels != list(small_mnist.test_labels)  # stored in another order, so `check` sees that it is restored


def test_no_network_is_given_up_soon(folder, archives, closed_url, small_mnist):
    moved = {field: dataclasses.replace(each, url=closed_url + each.file_name) for field, each in archives.items()}
    with pytest.raises(
        MnistUnavailableError,
        match=r"no connection to 127.0.0.1:\d+: Connection refused. Pass --data-dir DIR.*train-images-idx3-ubyte.gz, .*"
        "or --dataset digits",
    ):
        from_tensorflow_datasets(folder, moved)
    check(from_tensorflow_datasets(folder, archives), small_mnist)


@pytest.mark.parametrize("at", range(4))
def test_a_server_error_at_any_file_keeps_the_files_before(folder, archives, archive_bytes, server, small_mnist, at):
    server.fail(NAMES[at], 500)
    with pytest.raises(MnistUnavailableError, match=f"answered 500 Internal Server Error for http.*{NAMES[at]}. Pass"):
        from_tensorflow_datasets(folder, archives)
    assert server.asked == NAMES[: at + 1]
    server.send(NAMES[at], archive_bytes[NAMES[at]])
    check(from_tensorflow_datasets(folder, archives), small_mnist)
    assert server.asked == NAMES[: at + 1] + NAMES[at:]


def test_a_truncated_archive(folder, archives, archive_bytes, server, small_mnist):
    whole = archive_bytes[NAMES[2]]
    server.send(NAMES[2], whole[:-100], announced=len(whole))
    with pytest.raises(MnistUnavailableError, match=f"{NAMES[2]}"):
        from_tensorflow_datasets(folder, archives)
    server.send(NAMES[2], whole)
    check(from_tensorflow_datasets(folder, archives), small_mnist)


def test_the_wrong_archive_is_an_error_and_is_not_kept(folder, archives, archive_bytes, server, small_mnist):
    whole = archive_bytes[NAMES[1]]
    server.send(NAMES[1], whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ChecksumError, match=f"{NAMES[1]} sent something other than the published file"):
        from_tensorflow_datasets(folder, archives)
    assert [path.name for path in (folder / "mnist").iterdir()] == [NAMES[0]]
    server.send(NAMES[1], whole)
    check(from_tensorflow_datasets(folder, archives), small_mnist)


def test_tensorflow_datasets_checks_the_archives_too(mnist_folder, archives, tmp_path):
    field = "test_labels"
    wrong = {**archives, field: dataclasses.replace(archives[field], sha256="0" * 64)}
    with pytest.raises(NonMatchingChecksumError, match="t10k-labels"):
        mnist_builder.prepare(wrong, mnist_folder, tmp_path / "prepared")


def test_an_exception_while_preparing(folder, archives, server, small_mnist, monkeypatch):
    def failing(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mnist_builder, "_png", failing)
        with pytest.raises(KeyboardInterrupt):
            from_tensorflow_datasets(folder, archives)
    assert not (folder / "mnist.arrays").exists()
    server.close()
    check(from_tensorflow_datasets(folder, archives), small_mnist)


def run(script: str, folder: Path, archives) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own, with `load` defined as loading from the archives."""
    prelude = f"""
import os, signal, sys
from pathlib import Path
from typing import Any, cast
from train.data import mnist
from train.data.download import Archive
def load():
    return mnist.from_tensorflow_datasets(Path({str(folder)!r}), {archives!r})
"""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", prelude + script],
        env={**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_killed_while_preparing(folder, archives, server, small_mnist):
    script = """
from train.data import mnist_builder
whole, count = mnist_builder._png, iter(range(60))
def png(image):
    if next(count) == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(image)
mnist_builder._png = png
load()
"""
    assert run(script, folder, archives).returncode == -9
    prepared = folder / "tensorflow_datasets" / "mnist"
    assert [path.name[:11] for path in prepared.iterdir()] == ["incomplete."]
    server.close()
    check(from_tensorflow_datasets(folder, archives), small_mnist)
    assert [path.name for path in prepared.iterdir()] == ["3.0.1"]


def test_killed_while_writing_the_cache(folder, archives, small_mnist):
    folder.mkdir()
    (folder / "mnist.arrays.part").write_bytes(b"jaxbn arrays 1 sha256 ")
    check(from_tensorflow_datasets(folder, archives), small_mnist)
    assert not (folder / "mnist.arrays.part").exists()


def test_says_nothing_and_imports_only_what_it_uses(folder, archives):
    slow = "print(sorted({'tensorflow_datasets', 'tensorflow', 'sklearn', 'PIL', 'jax'} & set(sys.modules)))"
    first = run(f"{slow}\nload()\n{slow}", folder, archives)
    assert first.stderr == ""
    assert first.stdout.splitlines() == ["[]", "['PIL', 'tensorflow_datasets']"]
    again = run(f"load()\n{slow}", folder, archives)
    assert (again.stdout, again.stderr) == ("[]\n", "")


@pytest.mark.parametrize("where", [0, 30, 86, 5000, -1])
def test_a_damaged_cache_is_noticed_said_and_rebuilt(folder, archives, server, small_mnist, where):
    from_tensorflow_datasets(folder, archives)
    server.close()
    path = folder / "mnist.arrays"
    damaged = bytearray(path.read_bytes())
    damaged[where] ^= 16
    path.write_bytes(damaged)
    note = f"{path} is damaged: its content does not match the SHA-256 it was written with; it was rebuilt"
    check(from_tensorflow_datasets(folder, archives), small_mnist, note=note)
    check(from_tensorflow_datasets(folder, archives), small_mnist)


def test_a_damaged_cache_that_cannot_be_rebuilt(folder, archives, server):
    from_tensorflow_datasets(folder, archives)
    server.close()
    (folder / "mnist.arrays").write_bytes(b"")
    (folder / "mnist" / NAMES[3]).unlink()
    with pytest.raises(
        MnistUnavailableError, match=r"mnist.arrays is damaged: .*; no connection to .*\. Pass --data-dir"
    ):
        from_tensorflow_datasets(folder, archives)


def test_a_damaged_archive_is_fetched_again(folder, archives, archive_bytes, server, small_mnist):
    (folder / "mnist").mkdir(parents=True)
    for name, body in archive_bytes.items():
        (folder / "mnist" / name).write_bytes(body if name != NAMES[0] else body[:-1])
    check(from_tensorflow_datasets(folder, archives), small_mnist)
    assert server.asked == [NAMES[0]]


def test_of_several_that_start_at_once_one_prepares(folder, archives, server, small_mnist):
    datasets = []
    threads = [
        threading.Thread(target=lambda: datasets.append(from_tensorflow_datasets(folder, archives))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == NAMES
    assert len(datasets) == 3
    for dataset in datasets:
        check(dataset, small_mnist)


def test_a_cache_folder_that_cannot_be_made(tmp_path, archives):
    (tmp_path / "file").touch()
    with pytest.raises(
        MnistUnavailableError, match=r"the cache folder .*file/cache cannot be written .*set XDG_CACHE_HOME"
    ):
        from_tensorflow_datasets(tmp_path / "file" / "cache", archives)


def test_without_tensorflow_datasets(folder, archives, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delitem(sys.modules, "train.data.mnist_builder")
    monkeypatch.delattr(data, "mnist_builder")
    with pytest.raises(
        MnistUnavailableError, match=r"import of tensorflow_datasets halted.*pip install 'jaxbn\[train\]'"
    ):
        from_tensorflow_datasets(folder, archives)
