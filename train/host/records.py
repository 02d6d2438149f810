"""Files of records: one JSON object per line, each with a checksum, so that no byte can change unnoticed.

    {"epoch": 1, "step": 937, …, "crc32": "8c736521"}

The checksum covers the line without it. A line without a checksum, as earlier versions wrote them, is accepted if it
contains exactly the fields of its kind, so that a checksum with a damaged name is not mistaken for a missing one.
"""

import dataclasses
import functools
import json
import logging
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from train.host import files, typed

_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}$')
_log = logging.getLogger(__name__)

Record = dict[str, Any]  # by field; null or missing fields are None


def append(path: Path, record: Record) -> None:
    """Append a record to a file."""
    files.append(path, _line(record))


def write(path: Path, records: Iterable[Record]) -> None:
    """Replace the content of a file by records."""
    files.write(path, "".join(_line(record) + "\n" for record in records))


def read(path: Path, kind: type, whole: bool = True) -> list[Record]:
    """Read the intact records of a file; return none if the file does not exist.

    A damaged line is reported in the log, once, and skipped. An incomplete last line, which was being written when the
    program was killed, is skipped silently.

    Args:
        path: the file.
        kind: the dataclass that defines the fields and their types.
        whole: count a line that lacks a field as damaged, unless the field may be None.

    Raises:
        OSError: it cannot be read.

    """
    if not path.exists():
        return []
    with files.naming(path, "read"):
        *lines, last = path.read_bytes().split(b"\n")
    if last and not _is_cut(last):
        lines.append(last)
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(_record(line, kind, whole))
        except ValueError as error:
            _report(f"{path}: line {number} is damaged and skipped ({error})")
    return found


def _line(record: Record) -> str:
    text = json.dumps(record, allow_nan=False)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}'


def _record(line: bytes, kind: type, whole: bool) -> Record:
    """Parse the record in a line; raise a ValueError if it is damaged."""
    names = [field.name for field in dataclasses.fields(kind)]
    checksum = _CHECKSUM.search(line)
    if checksum is None:
        values = typed.parse(line)
    else:
        content = line[: checksum.start()] + b"}"
        if b"%08x" % zlib.crc32(content) != checksum[1]:
            raise ValueError("its checksum does not match")
        stored = typed.parse(content)
        values = {name: stored[name] for name in names if name in stored}  # a newer version may have written more
    if whole:
        return dataclasses.asdict(typed.read(kind, values, noun="field"))
    return dict.fromkeys(names) | typed.check(kind, values, noun="field")


def _is_cut(line: bytes) -> bool:
    """True if an unfinished line is the beginning of an object."""
    try:
        json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return True
    return False


@functools.cache
def _report(message: str) -> None:
    """Log a warning only once, since several parts of a command read the same file."""
    _log.warning(message)
