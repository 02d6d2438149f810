"""Output in encodings that lack some characters: similar ones replace them, so that no UnicodeEncodeError is raised.

Redirected output is in cp1252 on Windows, and in ASCII in the C locale.
"""

import codecs
import contextlib
import io
import unicodedata
from typing import TextIO

HANDLER = "jaxbn.nearest"
SURROGATES = range(0xDC80, 0xDD00)  # how Python represents bytes of a file name that are not UTF-8
BOXES = range(0x2500, 0x2580)
BRAILLE = range(0x2800, 0x2900)  # the characters of spinners
NEAREST = {
    **dict.fromkeys("‐‑‒–—−", "-"),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("─━═╌╴╶╸╺╼╾", "-"),
    **dict.fromkeys("│┃║", "|"),
    "…": "...",
    "×": "x",
    "±": "+/-",
    "·": "*",
    "‖": "||",
}


def tolerate(stream: TextIO) -> None:
    """Make a stream replace characters that its encoding lacks by the nearest ones that it has."""
    codecs.register_error(HANDLER, replace)
    if isinstance(stream, io.TextIOWrapper):
        with contextlib.suppress(io.UnsupportedOperation):
            stream.reconfigure(errors=HANDLER)


def is_text(name: str) -> bool:
    r"""True if a name is free of bytes that are not UTF-8.

    Example:
        >>> is_text("café"), is_text("caf\udce9")
        (True, False)

    """
    return not any(ord(character) in SURROGATES for character in name)


def replace(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Replace characters by similar ones, their own bytes, or a question mark.

    Example:
        >>> codecs.register_error(HANDLER, replace)
        >>> "é × 2 … ✓ ⁵ ━".encode("latin-1", HANDLER), "3–4 é".encode("ascii", HANDLER)
        (b'\xe9 \xd7 2 ... ? 5 -', b'3-4 e')

    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if ord(character) in SURROGATES:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return nearest(character, error.encoding), error.start + 1


def nearest(character: str, encoding: str) -> str:
    """Return similar characters that an encoding has, or a question mark if there are none."""
    if ord(character) in BOXES:
        return NEAREST.get(character, "+")
    if ord(character) in BRAILLE:
        return "*"
    decomposed = (c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    alike = NEAREST.get(character) or "".join(decomposed)
    try:
        alike.encode(encoding)
    except UnicodeEncodeError:
        return "?"
    return alike or "?"
