"""Dataclasses read strictly from JSON: a value that does not fit its field raises a ValueError that names the field."""

import dataclasses
import difflib
import functools
import json
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

LONGEST = 80  # characters of a value that a message repeats

Kind = TypeVar("Kind")


def parse(text: str | bytes) -> Any:  # noqa: ANN401  (any JSON)
    """Parse JSON, as UTF-8 if it is bytes.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.

    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(kind: type[Kind], values: Any, name: str = "", noun: str = "option") -> Kind:  # noqa: ANN401  (any JSON)
    """Read a dataclass from a JSON object of its fields.

    A missing field gets its default, or None if it has no default and its type allows None.

    Args:
        kind: the dataclass.
        values: the object.
        name: its name in messages; empty at the top.
        noun: the word for a field in messages.

    Raises:
        ValueError: it is not an object, lacks a field, or contains an unknown field or an invalid value.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Size:
        ...     height: int
        ...     width: int = 28
        >>> read(Size, {"height": 3})
        Size(height=3, width=28)
        >>> read(Size, {"height": "3"})
        Traceback (most recent call last):
        ValueError: height must be a whole number; got "3"

    """
    found = check(kind, values, name, noun)
    hints, required = _fields(kind)
    for key in required - found.keys():
        if not without_none(hints[key])[1]:
            raise ValueError(f"{f'{name}.{key}' if name else key} is missing")
        found[key] = None
    return kind(**found)


def check(kind: type, values: Any, name: str = "", noun: str = "option") -> dict[str, Any]:  # noqa: ANN401
    """Read the fields of a dataclass from a JSON object, in their types; some may be missing.

    Raises:
        ValueError: it is not an object, or contains an unknown field or an invalid value.

    """
    if not isinstance(values, dict):
        raise ValueError(f"{name or 'it'} must be an object of {noun}s; got {shown(values)}")
    hints, _ = _fields(kind)
    found = {}
    for key, value in values.items():
        label = f"{name}.{key}" if name else key
        if key not in hints:
            near = difflib.get_close_matches(key[:LONGEST], hints, n=1)
            what = f"; perhaps {near[0]!r}?" if near else ": take it out, or update jaxbn if a newer version wrote it"
            raise ValueError(f"there is no {noun} {_cut(label)!r}" + (what if noun == "option" else ""))
        found[key] = _value(hints[key], value, label, noun)
    return found


def shown(value: Any) -> str:  # noqa: ANN401
    """Format a JSON value for a message.

    Example:
        >>> shown(None), len(shown("x" * 1000))
        ('null', 80)

    """
    try:
        return _cut(json.dumps(value))
    except RecursionError:
        return "a deeply nested value"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a dataclass's fields, and the fields without a default."""
    fields = [field for field in dataclasses.fields(kind) if field.init]
    hints = get_type_hints(kind)
    missing = dataclasses.MISSING
    required = [each.name for each in fields if each.default is missing and each.default_factory is missing]
    return {field.name: hints[field.name] for field in fields}, frozenset(required)


def without_none(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401
    """Return a type without None, and whether it included None.

    Example:
        >>> without_none(int | None), without_none(int)
        ((<class 'int'>, True), (<class 'int'>, False))

    """
    if get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        return hint, True
    return hint, False


def _value(hint: Any, value: Any, label: str, noun: str) -> Any:  # noqa: ANN401  (of the type that the hint says)
    """Convert a JSON value to the type of a field."""
    hint, optional = without_none(hint)
    if optional and value is None:
        return None
    parts = get_args(hint)
    if dataclasses.is_dataclass(hint):
        return read(hint, value, label, noun)  # pyright: ignore[reportArgumentType]  (a class, since it is a type hint)
    if get_origin(hint) is tuple and isinstance(value, list):
        hints = [parts[0]] * len(value) if ... in parts else parts
        if len(hints) == len(value):
            return tuple(_value(part, each, label, noun) for part, each in zip(hints, value, strict=True))
    return _scalar(get_origin(hint) or hint, parts, value, label)


def _scalar(kind: Any, parts: tuple[Any, ...], value: Any, label: str) -> Any:  # noqa: ANN401
    """Convert a JSON value that contains no others."""
    if kind in (str, Path) and isinstance(value, str) and "\0" in value:
        raise ValueError(f"{label} must not hold a null character; got {shown(value)}")
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{label} must be a number below 1.8e308; got {shown(value)}") from None
    if kind is Path and isinstance(value, str):
        return Path(value)
    if (type(value) is str and value in parts) if kind is Literal else type(value) is kind:
        return value
    raise ValueError(f"{label} must be {_wanted(kind, parts)}; got {shown(value)}")


def _wanted(kind: Any, parts: tuple[Any, ...]) -> str:  # noqa: ANN401  (a type)
    """Describe the values of a field."""
    if kind is Literal:
        return f"one of {', '.join(parts)}"
    if kind is tuple:
        named = get_origin(parts[0]) is Literal
        return "a list of names" if named else f"a list of {'whole numbers' if int in parts else 'values'}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return names.get(kind, "an object")
