"""Parse the words of a command line to the options of a command with tyro; an error is one line."""

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from train.host.errors import UsageError
from train.host.typed import without_none

Options = TypeVar("Options")

readers = ConstructorRegistry()


class ArgumentError(UsageError):
    """The command line contains unknown options or invalid values."""

    code = 2


def parse(
    kind: type[Options], arguments: Sequence[str], prog: str, default: Options | None = None, pairs: bool = False
) -> Options:
    """Parse the options of a command.

    Args:
        kind: the dataclass of its options.
        arguments: the words after the command's name.
        prog: the command, as messages call it.
        default: the starting values of the options; None: their defaults.
        pairs: give each flag an opposite, `--no-...`; otherwise only flags that are on have one.

    Raises:
        ArgumentError: an option is unknown or a value invalid.

    """
    config = (tyro.conf.OmitArgPrefixes,) if pairs else (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    start: dict[str, Any] = {} if default is None else {"default": default}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            options, others = tyro.cli(
                kind,
                args=arguments,
                prog=prog,
                config=config,
                registry=readers,
                return_unknown_args=True,
                add_help=False,
                **start,
            )
    except SystemExit:
        raise ArgumentError(f"{one_line(printed.getvalue())} {prog} --help lists the options") from None
    if others:
        raise ArgumentError(_unknown(others[0], kind, prog))
    return options


def one_line(box: str) -> str:
    r"""Extract the message from a box that tyro draws.

    Example:
        >>> one_line("╭─ Value error ─╮\n│ Error parsing --top: must be a │\n│ whole number │\n│ ──── │\n│ Help │")
        '--top must be a whole number.'

    """
    title, *rows = [line.strip("│ ") for line in box.splitlines()]
    is_rule = re.compile("[─╰╯-]+").fullmatch  # in ASCII, where the terminal has no more, one follows the title
    message = " ".join(itertools.takewhile(lambda row: not is_rule(row), itertools.dropwhile(is_rule, rows)))
    message = message or title.strip("╭╮─ ")
    if found := re.match(r"Error parsing (.*?): (.*)", message):
        message = f"{found[1]} {found[2]}"
    elif found := re.match(r"Missing value for argument '(.*?)'", message):
        message = f"{found[1]} needs a value"
    elif found := re.match(r"Missing from .*? VALUE (.*?)\.? \(required\)", message):
        message = f"missing: {found[1]}"
    return message if message.endswith(("?", ".")) else message + "."


def nearest(word: str, words: Sequence[str]) -> str:
    """Return the most similar word as a question, or nothing if no word is similar.

    Example:
        >>> nearest("mnits", ("mnist", "iris")), nearest("x", ("mnist",))
        (': perhaps mnist?', '')

    """
    near = difflib.get_close_matches(word, words, n=1)
    return f": perhaps {near[0]}?" if near else ""


def option_names(kind: Any) -> list[str]:  # noqa: ANN401  (a dataclass)
    """The options of a dataclass and of its sections, as they are typed on the command line."""
    found = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            found += option_names(hint)
        elif get_origin(hint) is not Annotated:  # those have no name on the command line
            found.append(f"--{name.replace('_', '-')}")
    return found


def _unknown(word: str, kind: type, prog: str) -> str:
    if not word.startswith("-"):
        return f"{word!r} is neither an option nor the value of one. {prog} --help lists the options"
    name = word.partition("=")[0]
    perhaps = nearest(name, option_names(kind))
    every = " all" if prog.endswith("train") else ""
    return f"there is no option {name}{perhaps or '.'} {prog} --help{every} lists all"


@readers.primitive_rule
def _value(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Define how the value of an option is read: a choice, a number, a path, or `none` where the type allows it."""
    hint, optional = without_none(info.type)
    several = get_origin(hint) is tuple and get_args(hint)[-1] is ...
    read = _reader(get_args(hint)[0] if several else hint)
    if read is None:
        return None

    def value(words: list[str]) -> Any:  # noqa: ANN401
        if optional and len(words) == 1 and words[0].lower() == "none":
            return None
        return tuple(map(read, words)) if several else read(words[0])

    return PrimitiveConstructorSpec(
        nargs="*" if several else 1,
        metavar="VALUE",
        instance_from_str=value,
        is_instance=lambda _: True,
        str_from_instance=lambda given: [str(each) for each in given] if isinstance(given, tuple) else [str(given)],
    )


def _reader(hint: Any) -> Callable[[str], Any] | None:  # noqa: ANN401
    """Return the function that reads one word, or None for a type that tyro reads itself."""
    if get_origin(hint) is Literal:
        return lambda word: _choice(word, get_args(hint))
    if hint in (int, float):
        return lambda word: _number(word, hint)
    return hint if hint in (str, Path) else None


def _choice(word: str, choices: Sequence[str]) -> str:
    if word not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}; got {word}{nearest(word, choices)}")
    return word


def _number(word: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f"must be a {'whole ' if kind is int else ''}number; got {word}") from None
