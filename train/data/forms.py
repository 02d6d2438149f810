"""Recognizing the format of a file by its first bytes."""

_STARTS = {
    b"PK\3\4": "a zip archive: unpack it",
    b"\x1f\x8b": "gzip data: unpack it",
    b"BZh": "a bzip2 file: unpack it",
    b"\xfd7zXZ": "an xz file: unpack it",
    b"\x1f\x9d": "a file of compress (.Z): unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"7z\xbc\xaf": "a 7-zip archive: unpack it",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "an array in NumPy's own form (.npy)",
    b"\x89HDF": "an HDF5 file",
    b"MATLAB": "a MATLAB file",
    b"PAR1": "a Parquet file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: `git lfs pull` fetches it",
    b"<!DOCTYPE": "a web page: the download went wrong",
    b"<html": "a web page: the download went wrong",
}


def recognised(content: bytes) -> str | None:
    r"""Return the format of a file as a phrase, with advice, or None if it is unknown.

    Example:
        >>> recognised(b"PK\x03\x04 and so on"), recognised(b"anything")
        ('a zip archive: unpack it', None)

    """
    start = content[:64].lstrip().lower()
    return next((what for begin, what in _STARTS.items() if start.startswith(begin.lower())), None)
