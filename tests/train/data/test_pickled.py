"""Pickles: every protocol is read, nothing is run, and no crafted file takes long."""

import collections
import datetime
import pickle
import pickletools
import struct

import numpy as np
import pytest

from train.data.cifar10 import CifarError, read_python
from train.data.pickled import PickleError, PickleFormError, read

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
LABELS = [6, 0, 9]
SHAPES = {  # as people pack the files again
    "keys in bytes": lambda: {
        b"data": IMAGES,
        b"labels": LABELS,
        b"batch_label": b"1 of 5",
        b"filenames": [b"a.png"] * 3,
    },
    "labels as an array": lambda: {"data": IMAGES, "labels": np.array(LABELS)},
    "labels as an array of bytes": lambda: {"data": IMAGES, "labels": np.array(LABELS, np.uint8)},
    "labels as an array of big-endian numbers": lambda: {"data": IMAGES, "labels": np.array(LABELS, ">i4")},
    "labels as NumPy's integers": lambda: {"data": IMAGES, "labels": list(np.array(LABELS))},
    "images by columns": lambda: {"data": np.asfortranarray(IMAGES), "labels": LABELS},
    "images that cannot be written to": lambda: {"data": frozen(IMAGES), "labels": LABELS},
    "other things beside": lambda: {"data": IMAGES, "labels": LABELS, "mean": 0.5, "size": 2**70, "more": (None, True)},
}


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("shape", SHAPES)
def test_every_protocol_is_read(shape, protocol):
    images, labels = read_python("batch", pickle.dumps(SHAPES[shape](), protocol=protocol))
    np.testing.assert_array_equal(images, IMAGES.reshape(3, 3, 32, 32).transpose(0, 2, 3, 1))
    assert labels.tolist() == LABELS


def test_python_2_by_its_usual_protocol_is_read():
    """Strings as their repr, one a line."""

    def text(content):
        return b"S" + repr(content).encode()[1:] + b"\n"

    numbers = b"".join(b"I%d\na" % label for label in LABELS)
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"I0\nI1\ntR(I3\n" + text(b"|") + b"NNNI-1\nI-1\nI0\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt" + text(b"b") + b"tR"
    array += b"(I1\n(I3\nI3072\nt" + dtype + b"I00\n" + text(IMAGES.tobytes()) + b"tb"
    content = b"(d" + text(b"labels") + b"(l" + numbers + b"s" + text(b"data") + array + b"s."
    images, labels = read_python("batch", content)
    np.testing.assert_array_equal(images, IMAGES.reshape(3, 3, 32, 32).transpose(0, 2, 3, 1))
    assert labels.tolist() == LABELS


@pytest.mark.parametrize(
    "value",
    [
        {"data": collections.OrderedDict(), "labels": LABELS},
        {"data": datetime.date(2009, 4, 8), "labels": LABELS},
        {"data": np.array(["text"]), "labels": LABELS},
        {"data": np.array([None]), "labels": LABELS},
        {"data": IMAGES.view(np.recarray), "labels": LABELS},
        {"data": {1, 2}, "labels": LABELS},
    ],
)
def test_the_form_is_blamed_and_not_damage(value):
    for protocol in range(6):
        content = pickle.dumps(value, protocol=protocol)
        with pytest.raises(PickleFormError):
            read(content)
        with pytest.raises(CifarError, match="as published, files hold a dict with a NumPy array and a list") as caught:
            read_python("batch", content)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4" + bytes(99), "batch: this is a zip archive: unpack it"),
        (b"\x1f\x8b" + bytes(99), "batch: this is gzip data: unpack it"),
        (b"<!DOCTYPE html><html>", "batch: this is a web page: the download went wrong"),
        (b"\x93NUMPY\1\0", r"batch: this is an array in NumPy's own form \(\.npy\)"),
    ],
)
def test_other_forms_are_called_by_their_names(content, message):
    with pytest.raises(CifarError, match=message):
        read_python("batch", content)


def references(kind, depth=200):
    """Lists, tuples, dicts or keys, each of the one before it and that again."""
    parts = [b"\x80\x04]\x94"]
    for i in range(depth):
        again = b"j" + struct.pack("<I", i)
        match kind:
            case "lists":
                parts.append(b"](" + again + again + b"e\x94")
            case "tuples" | "keys":
                parts.append(again + again + b"\x86\x94")
            case "dicts":
                parts.append(b"}(K\1" + again + b"K\2" + again + b"u\x94")
    last = b"j" + struct.pack("<I", depth)
    parts.append(b"}" + last + b"K\1s." if kind == "keys" else last + b".")
    return b"".join(parts)


@pytest.mark.parametrize("kind", ["lists", "tuples", "dicts"])
def test_references_are_followed_once(kind):
    """Else the time would be that of 2^200 values."""
    content = references(kind)
    assert len(list(pickletools.genops(content))) < 3000
    read(content)


def test_keys_that_take_long_to_compare_are_refused():
    with pytest.raises(PickleFormError, match="a dict whose keys are not text"):
        read(references("keys"))


def test_bytes_that_are_encoded_again_and_again_are_encoded_once():
    """100,000 times a megabyte."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    content = b"\x80\x02](" + b"c_codecs\nencode\nq\0" + text + b"q\1X\6\0\0\0latin1q\2\x86R"
    content += b"h\0h\1h\2\x86R" * 100_000 + b"e."
    value = read(content)
    assert len(value) == 100_001
    assert len({id(each) for each in value}) == 1


@pytest.mark.parametrize("content", [b"cnumpy\nndarray\n.", b"(cnumpy\nndarray\nt.", b"(lcnumpy\nndarray\na."])
def test_a_name_by_itself_is_refused(content):
    with pytest.raises(PickleFormError, match="it holds numpy ndarray itself"):
        read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04]\x94h\0a.",  # a list of itself
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",  # lists within lists
        b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b".",
    ],
)
def test_endless_and_deep_values_are_refused(content):
    with pytest.raises(PickleError, match=r"it is damaged or cut short \("):
        read(content)


def test_messages_are_short():
    with pytest.raises(PickleError) as caught:
        read(b"c" + b"a" * 100_000 + b"\nb\n.")
    assert len(str(caught.value)) < 200
