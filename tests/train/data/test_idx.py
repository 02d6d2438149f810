import gzip
import os
import re
import struct
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest

from train.data import IdxError, idx, load
from train.data.dataset import Arrays

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28, 1)
LABELS = np.array([7, 0, 9], np.int32)

REAL = Path(os.environ.get("JAXBN_MNIST_DIR", Path(__file__).parents[4] / "shared" / "data" / "mnist"))


@pytest.mark.parametrize("joint", ["-", "."])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_reads_back_what_was_written(tmp_path, small_mnist, idx_bytes, joint, ending):
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    for stem, array in zip(stems, small_mnist, strict=True):
        kind = "idx3" if array.ndim > 1 else "idx1"
        body = idx_bytes(array)
        (tmp_path / f"{stem}{joint}{kind}-ubyte{ending}").write_bytes(gzip.compress(body) if ending else body)
    read = idx.read_folder(tmp_path)
    for field in Arrays._fields:
        expected, got = getattr(small_mnist, field), getattr(read, field)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_gzip_is_told_by_content_not_by_name(tmp_path, idx_bytes):
    plain, packed = tmp_path / "labels.gz", tmp_path / "labels"
    plain.write_bytes(idx_bytes(LABELS))
    packed.write_bytes(gzip.compress(idx_bytes(LABELS)))
    np.testing.assert_array_equal(idx.read_labels(plain), LABELS)
    np.testing.assert_array_equal(idx.read_labels(packed), LABELS)


def test_images_of_another_size_on_request(tmp_path, idx_bytes):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(IMAGES.reshape(3, 14, 56, 1)))
    np.testing.assert_array_equal(idx.read_images(path, size=(14, 56)), IMAGES.reshape(3, 14, 56, 1))


@pytest.mark.parametrize("packed", [False, True])
def test_any_shorter_or_longer_file_is_refused(tmp_path, idx_bytes, packed):
    whole = gzip.compress(idx_bytes(LABELS)) if packed else idx_bytes(LABELS)
    path = tmp_path / "train-labels"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(IdxError, match=re.escape(str(path))):
            idx.read_labels(path)
    path.write_bytes(whole + b"\x01")
    with pytest.raises(IdxError, match=re.escape(str(path))):
        idx.read_labels(path)


def test_no_flipped_bit_of_gzipped_data_is_read_as_something_else(tmp_path, idx_bytes):
    whole = gzip.compress(idx_bytes(LABELS), mtime=0)
    path = tmp_path / "train-labels"
    harmless = 0  # a few bits mean nothing: the time stamp, the padding of the last byte
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read = idx.read_labels(path)
        except IdxError:
            continue
        np.testing.assert_array_equal(read, LABELS)
        harmless += 1
    assert harmless < len(whole) * 8 / 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\0\0\x08", "IDX images begin with a header of 16 bytes, the file has 3"),
        (
            struct.pack(">IIII", 0x802, 1, 28, 28) + bytes(784),
            "begin with 0x00000803, found 0x00000802; this is another",
        ),
        (struct.pack(">II", 0x801, 8) + bytes(8), "found 0x00000801; these are IDX labels: are two files swapped?"),
        (struct.pack(">IIII", 0x803, 0, 28, 28), "the header says that the file holds 0 examples"),
        (struct.pack(">IIII", 0x803, 1, 28, 27) + bytes(756), "images must be 28x28 pixels, its header says 28x27"),
        (
            struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(1000),
            "announces 1568 bytes of data, found 1000 .568 are missing",
        ),
        (struct.pack(">IIII", 0x803, 1, 28, 28) + bytes(785), "announces 784 bytes of data, found 785 .1 too many"),
        (
            struct.pack(">IIII", 0x803, 2**32 - 1, 28, 28) + bytes(9),
            f"announces {(2**32 - 1) * 784} bytes of data, found 9",
        ),
    ],
)
def test_refuses_images_that_are_not_what_they_say(tmp_path, body, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(body)
    with pytest.raises(IdxError, match=f"^{re.escape(str(path))}: .*{message}"):
        idx.read_images(path)


def test_refuses_labels_that_are_images_or_out_of_range(tmp_path, idx_bytes):
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(IMAGES))
    with pytest.raises(
        IdxError, match=r"labels begin with 0x00000801, found 0x00000803; these are IDX images: .*swapped"
    ):
        idx.read_labels(path)
    path.write_bytes(idx_bytes(np.array([3, 9, 10, 10])))
    with pytest.raises(IdxError, match=r"labels must lie in 0\.\.9, but label number 2 is 10"):
        idx.read_labels(path)


def test_refuses_files_that_do_not_belong_together(mnist_folder, archive_bytes, monkeypatch):
    labels = mnist_folder / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(archive_bytes["t10k-labels-idx1-ubyte.gz"])
    with pytest.raises(
        IdxError, match=r"train-images-idx3-ubyte.gz holds 40 images but .*train-labels.* holds 20 labels"
    ):
        idx.read_folder(mnist_folder)
    (mnist_folder / "train-images-idx3-ubyte.gz").write_bytes(archive_bytes["t10k-images-idx3-ubyte.gz"])
    for kind in ("images-idx3", "labels-idx1"):
        (mnist_folder / f"t10k-{kind}-ubyte.gz").write_bytes(archive_bytes[f"train-{kind}-ubyte.gz"])
    monkeypatch.setattr(idx, "_OFFICIAL_COUNTS", (40, 20))
    with pytest.raises(IdxError, match="is MNIST the wrong way round; rename the files"):
        idx.read_folder(mnist_folder)


def test_lists_every_missing_file(mnist_folder):
    (mnist_folder / "train-labels-idx1-ubyte.gz").unlink()
    (mnist_folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"files lacks train-labels-idx1-ubyte, t10k-images-idx3-ubyte \(each"
    ) as error:
        idx.read_folder(mnist_folder)
    assert "train-images" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        idx.read_folder(mnist_folder / "nowhere")


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the real MNIST is not here: set JAXBN_MNIST_DIR to a folder with its four IDX files"
)
def test_the_real_mnist(idx_bytes):
    dataset = load("mnist", data_dir=REAL)
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (60_000, 10_000)
    published = {  # of the unpacked files
        "train_inputs": "6bbc9ace898e44ae57da46a324031adb",
        "train_labels": "a25bea736e30d166cdddb491f175f624",
        "test_inputs": "2646ac647ad5339dbf082846283269ea",
        "test_labels": "27ae3e4e09519cfbb04c329615203637",
    }
    assert {field: md5(idx_bytes(getattr(dataset, field))).hexdigest() for field in published} == published
