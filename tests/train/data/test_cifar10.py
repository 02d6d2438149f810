import io
import os
import pickle
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from train.data import CifarError, load
from train.data.cifar10 import BATCHES, read_binary, read_python
from train.data.pickled import PickleError, read
from train.data.published import PUBLISHED

REAL = Path(os.environ.get("JAXBN_CIFAR10_DIR", Path(__file__).parents[4] / "shared" / "data" / "cifar10"))
COUNT = 4  # images a file


@pytest.fixture(scope="module")
def parts():
    """Six files' images (N, 32, 32, 3) and labels, in the order of `BATCHES`."""
    random = np.random.default_rng(0)
    return [(random.integers(0, 256, (COUNT, 32, 32, 3), np.uint8), random.integers(0, 10, COUNT)) for _ in BATCHES]


def channels_first(images):
    return np.stack([images[..., colour].reshape(len(images), -1) for colour in range(3)], 1).reshape(len(images), -1)


def binary(images, labels):
    rows = channels_first(images)
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(rows, labels, strict=True))


def python2(images, labels):
    """The file as Python 2's cPickle wrote it, operation by operation."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    data = channels_first(images)
    dtype = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    shape = b"(K" + bytes([len(data)]) + b"M" + (3072).to_bytes(2, "little") + b"t"
    content = b"T" + data.nbytes.to_bytes(4, "little") + data.tobytes()
    array += b"(K\x01" + shape + dtype + b"I00\n" + content + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}q\x01(" + text(b"labels") + numbers + text(b"data") + array + b"u."


def python3(images, labels, protocol=2):
    record = {
        "batch_label": "training batch",
        "labels": [int(label) for label in labels],
        "data": channels_first(images),
    }
    return pickle.dumps(record | {"filenames": ["a.png"] * len(labels)}, protocol=protocol)


WRITERS = {"binary": (binary, ".bin", "cifar-10-batches-bin", "cifar-10-binary.tar.gz")}
WRITERS["python2"] = (python2, "", "cifar-10-batches-py", "cifar-10-python.tar.gz")
WRITERS["python3"] = (python3, "", "cifar-10-batches-py", "cifar-10-python.tar.gz")


def write(folder, parts, write_part, ending):
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in zip(BATCHES, parts, strict=True):
        (folder / (name + ending)).write_bytes(write_part(*part))


def archive(path, parts, write_part, ending, prefix):
    with tarfile.open(path, "w:gz") as file:
        for name, part in zip(BATCHES, parts, strict=True):
            content = write_part(*part)
            member = tarfile.TarInfo(f"{prefix}/{name}{ending}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def check(dataset, parts):
    assert (dataset.name, dataset.class_names) == ("cifar10", PUBLISHED["cifar10"].class_names)
    np.testing.assert_array_equal(dataset.train_inputs, np.concatenate([images for images, _ in parts[:-1]]))
    np.testing.assert_array_equal(dataset.train_labels, np.concatenate([labels for _, labels in parts[:-1]]))
    np.testing.assert_array_equal(dataset.test_inputs, parts[-1][0])
    np.testing.assert_array_equal(dataset.test_labels, parts[-1][1])
    assert dataset.train_inputs.dtype == np.uint8


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("layout", ["plain", "folder", "archive"])
def test_every_layout_is_read(tmp_path, parts, kind, layout):
    write_part, ending, folder, name = WRITERS[kind]
    if layout == "archive":
        archive(tmp_path / name, parts, write_part, ending, folder)
    else:
        write(tmp_path / folder if layout == "folder" else tmp_path, parts, write_part, ending)
    check(load("cifar10", data_dir=tmp_path), parts)


def test_a_binary_file_of_another_length_is_refused(parts):
    whole = binary(*parts[0])
    for wrong in (whole[:-1], whole + b"\0", b"", whole[:3072]):
        with pytest.raises(CifarError, match=r"batch: binary files are records of 3073 bytes.*fetch the file again"):
            read_binary("batch", wrong)


def test_a_file_cut_short_at_a_record_is_refused(tmp_path, parts):
    write(tmp_path, parts, binary, ".bin")
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-3073])
    with pytest.raises(CifarError, match=r"equally many images; got .*data_batch_3: 3, .*test_batch: 4"):
        load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("writer", [binary, python2, python3])
def test_a_label_out_of_range_is_refused(parts, writer):
    images, labels = parts[0]
    reader = read_binary if writer is binary else read_python
    with pytest.raises(CifarError, match=re.escape("labels must lie in 0..9, but label number 2 is 10")):
        reader("batch", writer(images, [*labels[:2], 10, *labels[3:]]))


@pytest.mark.parametrize("writer", [python2, python3])
def test_a_pickle_cut_short_anywhere_is_refused(parts, writer):
    whole = writer(*parts[0])
    for length in [*range(0, 200), *range(200, len(whole), 997)]:
        with pytest.raises(CifarError, match="batch"):
            read_python("batch", whole[:length])


def test_a_pickle_is_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    for protocol in range(6):
        content = pickle.dumps({"data": Evil(), "labels": []}, protocol=protocol)
        with pytest.raises(PickleError):
            read(content)
        with pytest.raises(CifarError, match="batch"):
            read_python("batch", content)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "hold a dict, found a list"),
        ({"labels": [1]}, "`data` must be an array"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "`labels` must be a list of 2 integers"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, "2"]}, "`labels` must be a list of 2 integers"),
        ({"data": np.zeros((2, 3072), np.float32), "labels": [1, 2]}, r"found an array \(2, 3072\) of float32"),
        ({"data": np.zeros((2, 30), np.uint8), "labels": [1, 2]}, r"found an array \(2, 30\) of uint8"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": np.ones(2)}, "`labels` must be a list of 2 integers"),
        (
            {"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [1, 2]},
            "this is a file of CIFAR-100, not of CIFAR-10",
        ),
    ],
)
def test_other_pickles_are_refused(value, message):
    with pytest.raises(CifarError, match=message):
        read_python("batch", pickle.dumps(value, protocol=2))


def test_what_is_missing_is_named(tmp_path, parts):
    with pytest.raises(FileNotFoundError, match=r"\(but nothing\): give a folder with data_batch_1\.bin"):
        load("cifar10", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none is not a folder: give the one that holds CIFAR-10's files"):
        load("cifar10", data_dir=tmp_path / "none")
    write(tmp_path, parts, binary, ".bin")
    (tmp_path / "data_batch_2.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks data_batch_2.bin: CIFAR-10 takes six files"):
        load("cifar10", data_dir=tmp_path)


def test_a_damaged_archive_is_refused(tmp_path, parts):
    path = tmp_path / "cifar-10-binary.tar.gz"
    archive(path, parts, binary, ".bin", "cifar-10-batches-bin")
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:length])
        with pytest.raises(CifarError, match=re.escape(str(path))):
            load("cifar10", data_dir=tmp_path)
    archive(path, parts, python2, "", "cifar-10-batches-py")
    with pytest.raises(CifarError, match=r"lacks data_batch_1\.bin"):
        load("cifar10", data_dir=tmp_path)


def test_fashion_mnist_is_read_as_mnist(mnist_folder, small_mnist):
    dataset = load("fashion_mnist", data_dir=mnist_folder)
    assert (dataset.name, dataset.class_names[0], dataset.class_names[9]) == (
        "fashion_mnist",
        "T-shirt/top",
        "ankle boot",
    )
    np.testing.assert_array_equal(dataset.test_inputs, small_mnist.test_inputs)


def test_real_cifar10():
    if not REAL.is_dir():
        pytest.skip("the real CIFAR-10 is not here: set JAXBN_CIFAR10_DIR to a folder with its files")
    dataset = load("cifar10", data_dir=REAL)
    assert dataset.train_inputs.shape[1:] == (32, 32, 3)
    counts = np.bincount(dataset.train_labels)
    assert len(counts) == 10
    assert counts.min() == counts.max()
    frogs, cars = (dataset.train_inputs[dataset.train_labels == label].mean((0, 1, 2)) for label in (6, 1))
    assert frogs[1] > frogs[2] + 10, "frogs are green rather than blue"
    assert abs(cars[1] - cars[2]) < 10
