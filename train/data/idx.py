"""Reading IDX, the file format of MNIST: a big-endian header, then the bytes.

    images   magic 0x00000803, count, height, width, then count * height * width pixels
    labels   magic 0x00000801, count, then count labels

A file that does not match its header is refused: otherwise a truncated file would silently train on fewer examples.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from train.data import forms, places
from train.data.dataset import Arrays, Dataset
from train.data.published import IDX_FILES, PUBLISHED, Published, compare
from train.host.errors import UsageError

IMAGE_MAGIC = 0x00000803
LABEL_MAGIC = 0x00000801
_GZIP_START = b"\x1f\x8b"  # an IDX file begins with two zero bytes instead
_TYPES = {  # the third byte
    **{0x08: "unsigned bytes", 0x09: "signed bytes", 0x0B: "short integers", 0x0C: "integers"},
    **{0x0D: "floats", 0x0E: "doubles"},
}
_KINDS = {IMAGE_MAGIC: "IDX images", LABEL_MAGIC: "IDX labels"}
_OFFICIAL_COUNTS = (60_000, 10_000)  # training and test examples of MNIST, and of Fashion-MNIST


class IdxError(UsageError):
    """An IDX file does not match its name or its header."""


def from_folder(folder: Path, published: Published) -> Dataset:
    """Read a dataset from the four IDX files of a folder; see `read_folder` for their names and the errors."""
    arrays = read_folder(folder, published.title)
    contents = {IDX_FILES[field]: encode(array) for field, array in arrays._asdict().items()}
    known, note = compare(published, contents)
    source = f"IDX files in {folder}"
    return Dataset(published.name, source, *arrays, class_names=published.class_names, note=note, published=known)


def read_folder(folder: Path, title: str = "MNIST") -> Arrays:
    """Read the four IDX files of MNIST, or of a dataset in its format, from a folder.

    Each may be gzipped or not, named `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, in lower or upper case,
    and be in a folder of its own name, as from Kaggle. Of several spellings, the plain one is read.

    Args:
        folder: the folder of the files, or the one above it, as torchvision leaves it.
        title: the title of the dataset.

    Raises:
        FileNotFoundError: a file or the folder is missing; the message lists all missing files.
        IdxError: a file is damaged, or the files do not belong together or belong to another dataset.
    """
    paths = find(folder, title)
    train_inputs, train_labels = read_pair(paths["train_inputs"], paths["train_labels"])
    test_inputs, test_labels = read_pair(paths["test_inputs"], paths["test_labels"])
    if (len(test_labels), len(train_labels)) == _OFFICIAL_COUNTS:
        raise IdxError(
            f"{folder}: the train files hold 10000 examples and the t10k files 60000, which is {title} the wrong "
            "way round; rename the files"
        )
    for other in PUBLISHED.values():
        first = other.first_labels
        if first and other.title != title and tuple(test_labels[: len(first)].tolist()) == first:
            raise IdxError(
                f"{folder} holds {other.title}, not {title}, whose files have the same names: --dataset {other.name}"
            )
    return Arrays(train_inputs, train_labels, test_inputs, test_labels)


def find(folder: Path, title: str = "MNIST") -> dict[str, Path]:
    """Find the four files in a folder, by the field of `Arrays` that each fills."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one that holds {title}'s four IDX files")
    # torchvision's: the root, and the dataset's own.
    candidates = (folder, folder / "raw", folder / title.replace("-", "") / "raw")
    place, found = next(((place, found) for place in candidates if (found := _lying(place))), (folder, {}))
    missing = [name for field, name in IDX_FILES.items() if field not in found]
    if missing:
        raise FileNotFoundError(
            f"{place} lacks {', '.join(missing)} (each also found as .gz, or with a dot for the second dash): "
            f"{title} takes four IDX files" + ("" if found else f"; the folder holds {places.holds(folder)}")
        )
    return found


def _lying(place: Path) -> dict[str, Path]:
    """Find those of the four files that are in a folder, directly or in a folder of the same name."""
    entries, found = places.entries(place), {}
    for field, name in IDX_FILES.items():
        names = _spellings(name)
        paths = [entries[name] for name in names if name in entries]
        within = [inner for path in paths for name in names if (inner := places.entries(path).get(name))]
        path = next((path for path in (*paths, *within) if path.is_file()), None)
        if path is not None:
            found[field] = path
    return found


def _spellings(name: str) -> list[str]:
    return [spelling + ending for spelling in (name, name.replace("-idx", ".idx")) for ending in ("", ".gz")]


def read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images and their labels, and check that there is one label per image."""
    images, labels = read_images(images_path), read_labels(labels_path)
    if len(images) != len(labels):
        raise IdxError(
            f"{images_path} holds {len(images)} images but {labels_path} holds {len(labels)} labels: "
            "the two files do not belong together"
        )
    return images, labels


def read_images(path: Path, size: tuple[int, int] = (28, 28)) -> np.ndarray:
    """Read an IDX file of images.

    Args:
        path: the file, gzipped or not.
        size: the height and width that the images must have.

    Returns:
        (N, height, width, 1) uint8.

    Raises:
        IdxError: the file is incomplete, or does not contain images of that size.
    """
    content = _content(path)
    count, height, width = _header(path, content, IMAGE_MAGIC, numbers=3)
    if (height, width) != size:
        raise IdxError(f"{path}: images must be {size[0]}x{size[1]} pixels, its header says {height}x{width}")
    pixels = _body(path, content, header_bytes=16, expected=count * height * width)
    return pixels.reshape(count, height, width, 1)


def read_labels(path: Path, num_classes: int = 10) -> np.ndarray:
    """Read an IDX file of labels.

    Args:
        path: the file, gzipped or not.
        num_classes: labels must lie in 0..num_classes-1.

    Returns:
        (N,) int32.

    Raises:
        IdxError: the file is incomplete, or contains a label out of range.
    """
    content = _content(path)
    (count,) = _header(path, content, LABEL_MAGIC, numbers=1)
    labels = _body(path, content, header_bytes=8, expected=count)
    if labels.max() >= num_classes:
        first = int(np.argmax(labels >= num_classes))
        raise IdxError(f"{path}: labels must lie in 0..{num_classes - 1}, but label number {first} is {labels[first]}")
    return labels.astype(np.int32)


def encode(array: np.ndarray) -> bytes:
    """Encode images (N, height, width, 1) or labels (N,) as an IDX file."""
    sizes = array.shape[: 3 if array.ndim > 1 else 1]
    header = np.array([IMAGE_MAGIC if array.ndim > 1 else LABEL_MAGIC, *sizes], ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_GZIP_START):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise IdxError(f"{path}: the gzip data is damaged or cut short ({error}); fetch the file again") from error


def _header(path: Path, content: bytes, magic: int, numbers: int) -> list[int]:
    """Check the magic number, and return the numbers that follow it: the count, then any sizes."""
    size = 4 * (1 + numbers)
    if len(content) < size:
        raise IdxError(
            f"{path}: {_KINDS[magic]} begin with a header of {size} bytes, the file has "
            f"{len(content)}; fetch the file again"
        )
    found, *rest = np.frombuffer(content, ">u4", count=1 + numbers).tolist()
    if found != magic:
        hint = f"these are {_KINDS[found]}: are two files swapped?" if found in _KINDS else _form(content)
        raise IdxError(f"{path}: {_KINDS[magic]} begin with 0x{magic:08x}, found 0x{found:08x}; {hint}")
    if rest[0] == 0:
        raise IdxError(f"{path}: the header says that the file holds 0 examples, at least 1 is needed")
    return rest


def _form(content: bytes) -> str:
    """Describe the format of a file with a wrong beginning."""
    if content[:2] == b"\0\0" and content[2] in _TYPES:
        return f"this is another format: IDX of {content[3]} dimensions, of {_TYPES[content[2]]}"
    form = forms.recognised(content)
    return f"this is another format: {form}" if form else "this is another format"


def _body(path: Path, content: bytes, header_bytes: int, expected: int) -> np.ndarray:
    found = len(content) - header_bytes
    if found != expected:
        what = f"{expected - found} are missing" if found < expected else f"{found - expected} too many"
        raise IdxError(
            f"{path}: the header announces {expected} bytes of data, found {found} ({what}); fetch the file again"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes)
