"""The text of --help: the most common options, or all of them, as wide as the terminal."""

import ast
import dataclasses
import inspect
import itertools
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from train.config.datasets import DATASETS
from train.config.options import text
from train.host.typed import without_none

FIRST = (  # the most common options of a run
    *("preset", "dataset", "data_dir", "validation", "network", "channels", "hidden", "norm_placement"),
    *("epochs", "batch_size", "optimizer", "learning_rate", "name", "overwrite", "resume", "seed"),
)
WIDEST = 100  # characters: longer lines are hard to read
INDENT, LEFT = 2, 28  # characters: the indentation of options, and of their explanations


class Option(NamedTuple):
    """An option with its explanation."""

    name: str
    typed: str
    explanation: str
    usual: str = ""  # its default value


class Section(NamedTuple):
    """A section of options."""

    title: str
    options: list[Option]


def sections(kind: type, start: Any = None) -> list[Section]:  # noqa: ANN401  (a value of that type)
    """List the options of a dataclass, and of each dataclass in it.

    Args:
        kind: the dataclass.
        start: the starting values; None: the defaults.

    """
    options: list[Option] = []
    inner: list[Section] = []
    explanations = _explanations(kind)
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, default = hints[field.name], getattr(start, field.name, field.default)
        if dataclasses.is_dataclass(hint):
            title = (getattr(hint, "__doc__", None) or "").splitlines()[0].rstrip(".")
            inner.append(Section(title, sections(hint, default)[0].options))  # pyright: ignore[reportArgumentType]
        else:
            options.append(_option(field.name, hint, default, explanations.get(field.name, "")))
    return [Section("options", options), *inner]


def render(found: list[Section]) -> str:
    """Format the options for printing."""
    lines = []
    for section in found:
        lines += ["", f"{section.title}:", *(line for option in section.options for line in _lines(option))]
    return "\n".join(lines)


def wrap(words: str, indent: int = 0) -> str:
    """Wrap a text at the width of the terminal."""
    return textwrap.fill(words, _width(), subsequent_indent=" " * indent, break_on_hyphens=False)


def first(found: list[Section]) -> list[Section]:
    """Select the most common options of a run."""
    options = [option for section in found for option in section.options if option.name in FIRST]
    return [Section("options", [each._replace(explanation=_first_sentence(each.explanation)) for each in options])]


def value_of(hint: Any) -> str:  # noqa: ANN401
    """Describe the values of an option in short.

    Example:
        >>> value_of(int | None), value_of(Literal["a", "b"]), value_of(tuple[int, ...] | None), value_of(bool)
        ('N or none', 'a|b', 'N ... or none', '')

    """
    hint, optional = without_none(hint)
    if optional:
        return f"{value_of(hint)} or none"
    if get_origin(hint) is tuple:
        return f"{value_of(get_args(hint)[0])} ..."
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    return {bool: "", int: "N", float: "NUMBER", Path: "PATH"}.get(hint, "TEXT")


def _option(name: str, hint: Any, default: Any, explanation: str) -> Option:  # noqa: ANN401
    words = name.replace("_", "-")
    if "{each}" in explanation:
        own = (f"{dataset} {text(getattr(recipe, name))}" for dataset, recipe in DATASETS.items())
        explanation = explanation.format(each=", ".join(own))
    if get_origin(hint) is Annotated:  # without a name on the command line
        inner = value_of(get_args(hint)[0])
        typed = f"{name.upper()}{' ...' if inner.endswith('...') else ''}"
        choices = f" One of {inner.replace('|', ', ')}." if "|" in inner else ""
        return Option(name, typed, explanation + choices)
    if hint is bool:
        return Option(name, f"--no-{words}" if default else f"--{words}", explanation)
    return Option(name, f"--{words} {value_of(hint)}", explanation, text(default))


def _lines(option: Option) -> Iterator[str]:
    head, indent = " " * INDENT + option.typed, INDENT + LEFT
    explanation = option.explanation + (f" [{option.usual}]" if option.usual else "")
    body = textwrap.wrap(explanation, _width() - indent, break_on_hyphens=False)
    if len(head) < indent and body:
        yield head.ljust(indent) + body.pop(0)
    else:  # choices may take several lines
        wrapper = textwrap.TextWrapper(_width(), " " * INDENT, " " * 3 * INDENT, break_on_hyphens=False)
        yield from (line.replace("| ", "|") for line in wrapper.wrap(option.typed.replace("|", "| ")))
    yield from (" " * indent + line for line in body)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, WIDEST)


def _first_sentence(explanation: str) -> str:
    return explanation.partition(". ")[0].rstrip(".") + "."


def _explanations(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and of its base classes."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (definition,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in itertools.pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).split())
    return found
