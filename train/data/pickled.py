"""Reading plain values from a pickle without running it.

Unpickling calls whatever functions a file names. This reader calls none: it follows only the operations that plain data
and NumPy arrays are written with, in every protocol, and stores a call as data instead of making it. Each value is
visited once, however often the file refers to it, so the time is linear in the length of the file.
"""

import io
import pickletools
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np

_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NOTHING = {"PROTO", "FRAME"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CORES = ("numpy.core", "numpy._core")  # in different versions of NumPy
_NAMES = {  # the functions and classes that arrays are written with
    *(f"{core}.multiarray {name}" for core in _CORES for name in ("_reconstruct", "scalar")),
    *(f"{core}.numeric _frombuffer" for core in _CORES),
    "numpy ndarray",
    "numpy dtype",
    "_codecs encode",
}
_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"b1", "f2", "f4", "f8"}
_LONGEST = 60  # characters of a file that an error message repeats


class PickleError(ValueError):
    """A file is not a pickle of plain values and arrays of numbers."""


class PickleFormError(PickleError):
    """The pickle may be intact, but contains something else."""


class Name(NamedTuple):
    """A function or class that the file refers to by name."""

    text: str


class Call:
    """A call that the file contains, which is not made."""

    def __init__(self, name: Name, arguments: tuple[Any, ...]) -> None:
        self.name = name.text
        self.arguments = arguments
        self.state: list[Any] = []  # the state that the file then sets; at most one


def read(content: bytes) -> Any:  # noqa: ANN401
    """Read a value of dicts, lists, tuples, numbers, text (bytes in old files), and arrays of numbers from a pickle.

    Raises:
        PickleFormError: it contains anything else.
        PickleError: it is damaged.

    Example:
        >>> import pickle
        >>> read(pickle.dumps({"labels": [6, 9]}, protocol=2))
        {'labels': [6, 9]}
        >>> read(pickle.dumps(print))
        Traceback (most recent call last):
        train.data.pickled.PickleFormError: it refers to builtins print, which plain data does not

    """
    machine = _Machine()
    try:
        for name, argument in _operations(content):
            if name == "STOP":
                return _Plain().value(machine.stack.pop())
            machine.take(name, argument)
    except PickleError:
        raise
    except Exception as error:  # whatever damaged bytes lead to
        raise PickleError(f"it is damaged or cut short ({str(error)[:_LONGEST]})") from error
    raise PickleError("it is cut short")


def _operations(content: bytes) -> Iterator[tuple[str, Any]]:
    """The operations of a pickle, each with its argument."""
    stream = io.BytesIO(content)
    while code := stream.read(1):
        operation = _OPERATIONS[code]
        if operation.name == "STRING":  # pickletools reads only those of ASCII
            yield operation.name, stream.readline().strip()[1:-1].decode("unicode_escape")
        else:
            yield operation.name, operation.arg and operation.arg.reader(stream)


class _Machine:
    """The stack of a pickle, with the operations that plain data needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded: dict[int, tuple[str, bytes]] = {}  # by the identity of the text

    def take(self, name: str, argument: Any) -> None:  # noqa: ANN401
        """Carry out one operation."""
        if name in _VALUES:
            # The strings of Python 2 come as text with one character per byte.
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
        """Carry out an operation that combines several values into one."""
        if name in _TUPLES:
            self.stack[-_TUPLES[name] :] = [tuple(self.stack[-_TUPLES[name] :])]
        elif name == "TUPLE":
            self.stack.append(tuple(self.since_mark()))
        elif name in ("LIST", "DICT"):
            values = self.since_mark()
            self.stack.append([] if name == "LIST" else {})
            self.extend(values)
        elif name in ("APPENDS", "SETITEMS"):
            self.extend(self.since_mark())
        elif name in ("APPEND", "SETITEM"):
            count = 1 if name == "APPEND" else 2
            values, self.stack[-count:] = self.stack[-count:], []
            self.extend(values)
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            if not isinstance(function, Name) or not isinstance(arguments, tuple):
                raise PickleFormError("it calls something without a name")
            encode = function.text == "_codecs encode"
            self.stack.append(self.encode(*arguments) if encode else Call(function, arguments))
        elif name == "BUILD":
            state = self.stack.pop()
            self.top(Call).state.append(state)
        else:
            raise PickleFormError(f"it does {name}, which plain data does not")

    def refer(self, name: str) -> None:
        """Push a name on the stack, if arrays need it."""
        if name not in _NAMES:
            raise PickleFormError(f"it refers to {name[:_LONGEST]}, which plain data does not")
        self.stack.append(Name(name))

    def encode(self, text: Any, encoding: Any) -> bytes:  # noqa: ANN401
        """Encode bytes as Python 3 writes them for Python 2, at once, since they may be the key of a dict."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise PickleFormError("it encodes something other than bytes")
        if id(text) not in self.encoded:
            self.encoded[id(text)] = text, text.encode("latin-1")
        return self.encoded[id(text)][1]

    def extend(self, values: list[Any]) -> None:
        """Add values to the list or dict on top of the stack."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)
            return
        keys = values[::2]
        if not all(isinstance(key, str | bytes | int) for key in keys):  # others may take long to compare
            raise PickleFormError("it holds a dict whose keys are not text")
        self.top(dict).update(zip(keys, values[1::2], strict=True))

    def since_mark(self) -> list[Any]:
        """Pop the values above the last mark."""
        start = self.marks.pop()
        values, self.stack[start:] = self.stack[start:], []
        return values

    def top(self, kind: type) -> Any:  # noqa: ANN401
        """Return the value on top of the stack, which must be of a kind."""
        if not isinstance(self.stack[-1], kind):
            raise PickleError("its operations do not fit each other")
        return self.stack[-1]


class _Plain:
    """Converts values to plain ones, with arrays in place of the calls that create them."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}  # by the identity of the value
        self.kept: list[Any] = []  # so that no identity is used again

    def value(self, value: Any) -> Any:  # noqa: ANN401
        """Convert a value; the same value always gives the same result."""
        if isinstance(value, Name):
            raise PickleFormError(f"it holds {value.text} itself")
        if not isinstance(value, list | tuple | dict | Call):
            return value
        key = id(value)
        if key not in self.made:
            self.kept.append(value)
            self.made[key] = self.make(value)
        return self.made[key]

    def make(self, value: Any) -> Any:  # noqa: ANN401
        """Convert a value that contains others."""
        if isinstance(value, dict):
            return {key: self.value(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.value(each) for each in value]
        if isinstance(value, tuple):
            return tuple(self.value(each) for each in value)
        return _array(value)


def _array(call: Call) -> Any:  # noqa: ANN401  (an array, or a number of one)
    """Evaluate a call that NumPy writes: an array with its state, an array of a buffer, or a single number."""
    if call.name.endswith(" _reconstruct") and len(call.state) == 1:
        _, shape, kind, by_columns, content = call.state[0]
    elif call.name.endswith(" _frombuffer") and not call.state:
        content, kind, shape, order = call.arguments
        by_columns = order == "F"
    elif call.name.endswith(" scalar") and not call.state:
        (kind, content), shape, by_columns = call.arguments, (), False
    else:
        raise PickleFormError(f"it contains a {call.name} that is not an array")
    numbers = np.frombuffer(content, _dtype(kind))
    array = numbers.reshape(shape, order="F" if by_columns else "C")
    return array.item() if call.name.endswith(" scalar") else array


def _dtype(kind: Any) -> np.dtype:  # noqa: ANN401
    """The dtype of an array, from (its name, …) and the state (version, byte order, …)."""
    name = kind.arguments[0] if isinstance(kind, Call) and kind.name == "numpy dtype" else None
    name = name.decode("latin-1") if isinstance(name, bytes) else name
    if name not in _NUMBERS or len(kind.state) != 1:
        raise PickleFormError("it holds an array that is not of numbers")
    order = kind.state[0][1]
    order = order.decode("latin-1") if isinstance(order, bytes) else order
    return np.dtype(name).newbyteorder(cast("Any", order))
