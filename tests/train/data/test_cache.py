import hashlib
from pathlib import Path

import numpy as np
import pytest

from train.data import cache
from train.data.dataset import Arrays

ARRAYS = Arrays(
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1),
    np.array([1, 0], np.int32),
    np.array([[0.5, -1.5]], np.float32),
    np.array([3], np.int32),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    cache.write(tmp_path / "some.arrays", ARRAYS)
    return tmp_path / "some.arrays"


def test_reads_back_what_was_written(path):
    read = cache.read(path)
    assert read is not None
    for expected, got in zip(ARRAYS, read, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_no_error(tmp_path):
    assert cache.read(tmp_path / "none") is None
    (tmp_path / "file").touch()
    assert cache.read(tmp_path / "file" / "none") is None


def test_a_flipped_bit_is_noticed(path):
    whole = bytearray(path.read_bytes())
    for position in (*range(100), *range(100, len(whole), 5)):  # every byte of the first line, many of the rest
        whole[position] ^= 1 << position % 8
        path.write_bytes(whole)
        with pytest.raises(
            cache.DamagedCacheError, match=r"some\.arrays is damaged: its content does not match the SHA-256"
        ):
            cache.read(path)
        whole[position] ^= 1 << position % 8
    path.write_bytes(whole)
    assert cache.read(path) is not None


def test_another_length_is_noticed(path):
    whole = path.read_bytes()
    for other in (*(whole[:length] for length in range(0, len(whole), 7)), whole + b"\0"):
        path.write_bytes(other)
        with pytest.raises(cache.DamagedCacheError):
            cache.read(path)


def test_the_first_line_says_what_the_file_is(path):
    first, _, rest = path.read_bytes().partition(b"\n")
    assert first.decode() == f"jaxbn arrays 1 sha256 {hashlib.sha256(rest).hexdigest()}"


def test_an_interrupted_write_leaves_the_old_file_whole(path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.write(path, ARRAYS._replace(train_labels=np.array([9, 9], np.int32)))
    monkeypatch.undo()
    read = cache.read(path)
    assert read is not None
    np.testing.assert_array_equal(read.train_labels, ARRAYS.train_labels)
