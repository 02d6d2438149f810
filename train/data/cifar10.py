"""CIFAR-10, small photographs, read from a folder with its six files (binary or Python's) or an archive of them.

The six files have equally many images: five for training, one for testing.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.data import archives, places
from train.data.cifar10_files import BATCHES, ENDINGS, CifarError, Part, read_binary, read_python
from train.data.dataset import Arrays, Dataset
from train.data.published import PUBLISHED, Published, compare
from train.host import files

_READERS = {"binary": read_binary, "Python": read_python}
_FOLDERS = {
    "binary": ("cifar-10-batches-bin",),
    "Python": ("cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py"),  # the last one is Keras's
}
_ARCHIVES = {  # as published, or as named by Keras
    "binary": ("cifar-10-binary", "cifar-10-batches-bin"),
    "Python": ("cifar-10-python", "cifar-10-batches-py", "cifar-10-batches-py-target"),
}
_ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", "_archive")
_EACH = 10_000  # images per file, as published


class Found(NamedTuple):
    """The six files and their place."""

    kind: str  # binary or Python
    place: Path  # their folder, or their archive
    contents: Callable[[], dict[str, bytes]]  # by their own names, in the order of `BATCHES`


def from_folder(folder: Path, published: Published = PUBLISHED["cifar10"]) -> Dataset:
    """Read CIFAR-10 from a folder with the six files, or with the folder or the archive in which they are published.

    If both versions are there, the binary files are read. Python's files may have any pickle protocol and end in
    `.pkl`; the archive may have the name that Keras gives it, another compression, or none.

    Args:
        folder: contains `data_batch_1.bin` … `test_batch.bin`, or `data_batch_1` … `test_batch`, or
            `cifar-10-batches-bin/`, `cifar-10-batches-py/`, `cifar-10-binary.tar.gz` or `cifar-10-python.tar.gz`.
        published: the published files, for comparison.

    Raises:
        FileNotFoundError: the folder contains none of these.
        CifarError: a file is damaged, truncated or of another format, or the six do not belong together.

    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one that holds CIFAR-10's files or archive")
    incomplete: list[str] = []
    found = next(_find(folder, incomplete), None)
    if found is None and incomplete:
        raise FileNotFoundError(incomplete[0])
    if found is None:
        raise FileNotFoundError(
            f"{folder} does not contain CIFAR-10 (but {places.holds(folder)}): give a folder with data_batch_1.bin … "
            "data_batch_5.bin and test_batch.bin, with the files of the Python version, or with cifar-10-binary.tar.gz "
            "or cifar-10-python.tar.gz"
        )
    return _dataset(published, found)


def read_archive(archive: Path, kind: str = "binary") -> list[Part]:
    """Read the images and labels of each file of an archive, "binary" or "Python", in the order of `BATCHES`.

    Raises:
        CifarError: the archive is damaged, or lacks a file.

    """
    found = Found(kind, archive, functools.partial(_unpack, archive, kind))
    return _parts(found, found.contents())


def _find(folder: Path, incomplete: list[str]) -> Iterator[Found]:
    """Yield the six files, wherever they are in a folder; add messages about missing ones to the list."""
    for kind, subfolders in _FOLDERS.items():
        folders = [folder, *(folder / name for name in subfolders)]
        for place, ending in itertools.product(folders, ENDINGS[kind]):
            lying, names = places.entries(place), [batch + ending for batch in BATCHES]
            paths = {name: lying[name] for name in names if name in lying and lying[name].is_file()}
            if len(paths) == len(names):
                yield Found(kind, place, functools.partial(_read, paths))
            elif paths:
                missing = ", ".join(name for name in names if name not in paths)
                incomplete.append(f"{place} lacks {missing}: CIFAR-10 takes six files")
        lying = places.entries(folder)
        for parts in itertools.product(_ARCHIVES[kind], _ARCHIVE_ENDINGS):
            archive = lying.get("".join(parts))
            if archive is not None and archive.is_file():
                yield Found(kind, archive, functools.partial(_unpack, archive, kind))


def _read(paths: dict[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in paths.items()}


def _unpack(archive: Path, kind: str) -> dict[str, bytes]:
    wanted = {ending: [batch + ending for batch in BATCHES] for ending in ENDINGS[kind]}
    try:
        found = archives.unpack(archive, set(itertools.chain(*wanted.values())))
    except archives.ArchiveError as error:
        raise CifarError(str(error)) from error
    for names in wanted.values():
        if all(name in found for name in names):
            return {name: found[name] for name in names}
    missing = [name for name in wanted[ENDINGS[kind][0]] if name not in found]
    raise CifarError(f"{archive} lacks {', '.join(missing)}: is it another archive, or cut short?")


def _parts(found: Found, contents: dict[str, bytes]) -> list[Part]:
    """Read the images and labels of the six files."""
    joint = ": " if found.place.is_file() else "/"
    return [_READERS[found.kind](f"{found.place}{joint}{name}", content) for name, content in contents.items()]


def _dataset(published: Published, found: Found) -> Dataset:
    contents = found.contents()
    parts = _parts(found, contents)
    counts = [len(labels) for _, labels in parts]
    if len(set(counts)) > 1:  # the only sign of a file truncated at the end of a record
        each = ", ".join(f"{batch}: {count}" for batch, count in zip(BATCHES, counts, strict=True))
        raise CifarError(f"{found.place}: the six files must hold equally many images; got {each}")
    known, note = _compare(published, found, contents, counts[0])
    train, (test_images, test_labels) = parts[:-1], parts[-1]
    arrays = Arrays(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        test_images,
        test_labels,
    )
    source = str(found.place) if found.place.is_file() else f"{found.kind} files in {found.place}"
    return Dataset(published.name, source, *arrays, class_names=published.class_names, note=note, published=known)


def _compare(published: Published, found: Found, contents: dict[str, bytes], count: int) -> tuple[bool | None, str]:
    """Return whether these are the published files, and the note for the user."""
    if count != _EACH:
        return False, f"not the published CIFAR-10, whose files hold {_EACH:,} images each: these hold {count:,}"
    if found.kind == "Python":
        return compare(published, dict(zip(BATCHES, contents.values(), strict=True)))
    if found.place.is_dir():
        return None, ""  # there is nothing to compare with
    if files.sha256(found.place) == published.archives["all"].sha256:
        return True, ""
    return None, f"{found.place.name} is not the published archive (by its SHA-256): packed again, or other data"
