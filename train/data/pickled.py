"""Reading plain values out of a pickle without running it.

Unpickling calls whatever functions a file names. This reader calls none: it follows the few operations that plain data
and NumPy arrays are written with, refuses every other one, and keeps a call that it meets as the words it consists of.
"""

import pickletools
from typing import Any, NamedTuple

import numpy as np

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NOTHING = {"PROTO", "FRAME"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NAMES = {  # what arrays are written with, by the versions of NumPy and Python there have been
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
    "_codecs encode",
}


class PickleError(ValueError):
    """A file is no pickle of plain values and arrays of bytes."""


class Name(NamedTuple):
    """Something that the file refers to by its name."""

    text: str


class Call(NamedTuple):
    """A call that the file asks for; it is not made."""

    name: Name
    arguments: tuple[Any, ...]
    state: list[Any]  # what the result is then given; at most one thing


def read(content: bytes) -> Any:  # noqa: ANN401
    """The value in a pickle: of dicts, lists, tuples, numbers, text (bytes in old files), and arrays of uint8.

    Raises:
        PickleError: it is damaged, or holds anything else.

    Example:
        >>> import pickle
        >>> read(pickle.dumps({"labels": [6, 9]}, protocol=2))
        {'labels': [6, 9]}
        >>> read(pickle.dumps(print))
        Traceback (most recent call last):
        train.data.pickled.PickleError: it refers to builtins print, which no plain data does

    """
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "STOP":
                return _plain(machine.stack.pop())
            machine.take(operation.name, argument)
    except PickleError:
        raise
    except Exception as error:  # whatever damaged bytes lead to
        raise PickleError(f"it is damaged or cut short ({error})") from error
    raise PickleError("it is cut short")


class _Machine:
    """The stack of a pickle, with the operations that plain data needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def take(self, name: str, argument: Any) -> None:  # noqa: ANN401
        """Does one operation."""
        if name in _VALUES:
            # genops gives the strings of Python 2 as text of one character a byte.
            self.stack.append(argument.encode("latin-1") if "STRING" in name else argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            self.stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.refer(argument if name == "GLOBAL" else " ".join(reversed([self.stack.pop(), self.stack.pop()])))
        elif name not in _NOTHING:
            self.combine(name)

    def combine(self, name: str) -> None:
        """Does an operation that makes one value of several."""
        if name in _TUPLES:
            self.stack[-_TUPLES[name] :] = [tuple(self.stack[-_TUPLES[name] :])]
        elif name == "TUPLE":
            self.stack.append(tuple(self.since_mark()))
        elif name in ("APPENDS", "APPEND"):
            values = self.since_mark() if name == "APPENDS" else [self.stack.pop()]
            self.top(list).extend(values)
        elif name in ("SETITEMS", "SETITEM"):
            values = self.since_mark() if name == "SETITEMS" else [self.stack.pop() for _ in range(2)][::-1]
            self.top(dict).update(zip(values[::2], values[1::2], strict=True))
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            if not isinstance(function, Name) or not isinstance(arguments, tuple):
                raise PickleError("it calls something without a name")
            self.stack.append(Call(function, arguments, []))
        elif name == "BUILD":
            state = self.stack.pop()
            self.top(Call).state.append(state)
        else:
            raise PickleError(f"it does {name}, which no plain data does")

    def refer(self, name: str) -> None:
        """Puts a name on the stack, if it is one that arrays need."""
        if name not in _NAMES:
            raise PickleError(f"it refers to {name}, which no plain data does")
        self.stack.append(Name(name))

    def since_mark(self) -> list[Any]:
        """Takes what lies above the last mark."""
        start = self.marks.pop()
        values, self.stack[start:] = self.stack[start:], []
        return values

    def top(self, kind: type) -> Any:  # noqa: ANN401
        """The value on top of the stack, which must be of a kind."""
        if not isinstance(self.stack[-1], kind):
            raise PickleError("its operations do not fit each other")
        return self.stack[-1]


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value with the calls that stand for arrays as arrays."""
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Call):
        return _encoded(value) if value.name.text == "_codecs encode" else _array(value)
    if isinstance(value, Name):
        raise PickleError(f"it holds {value.text} itself")
    return tuple(_plain(each) for each in value) if isinstance(value, tuple) else value


def _encoded(call: Call) -> bytes:
    text, encoding = call.arguments
    if not isinstance(text, str) or encoding != "latin1":
        raise PickleError("it encodes something other than bytes")
    return text.encode("latin-1")


def _array(call: Call) -> np.ndarray:
    """An array of uint8, from what NumPy writes: (version, shape, type, whether by columns, content)."""
    if not call.name.text.endswith("_reconstruct") or len(call.state) != 1:
        raise PickleError(f"it holds a {call.name.text} that is no array")
    _, shape, kind, by_columns, content = call.state[0]
    is_bytes = isinstance(kind, Call) and kind.name.text == "numpy dtype" and kind.arguments[0] in ("u1", b"u1")
    if not is_bytes or by_columns:
        raise PickleError("it holds an array that is not of unsigned bytes by rows")
    content = _encoded(content) if isinstance(content, Call) else content
    return np.frombuffer(content, np.uint8).reshape(shape)
