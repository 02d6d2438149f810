"""An optimised HLO program, read from its text: the operations of every computation, and the arrays between them."""

import re
from collections.abc import Iterator
from math import prod
from typing import NamedTuple

_WIDTHS = {"pred": 1, "bf16": 2} | {f"{kind}{bits}": bits // 8 for kind in "fsu" for bits in (8, 16, 32, 64)}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


class Array(NamedTuple):
    """An operand or a result: `bf16[256,56,56,64]{0,3,2,1:T(8,128)(2,1)S(1)}`."""

    dtype: str
    dims: tuple[int, ...]
    layout: str

    @property
    def elements(self) -> int:
        """The number of entries."""
        return prod(self.dims)

    @property
    def itemsize(self) -> int:
        """The bytes of an entry."""
        return _WIDTHS[self.dtype]

    @property
    def in_main_memory(self) -> bool:
        """True if it is in main memory: a layout names any other memory, `S(1)` being that on a TPU's chip."""
        return "S(" not in self.layout

    @property
    def bytes(self) -> int:
        """Its size in memory; a TPU pads the two fastest dimensions to whole tiles."""
        order, _, tiles = self.layout.partition(":")
        dims = [self.dims[int(axis)] for axis in order.split(",")[::-1] if axis] or [*self.dims]
        tile = [int(size) for size in found[1].split(",")] if (found := re.search(r"T\(([\d,]+)\)", tiles)) else []
        for i, size in enumerate(reversed(tile[-len(dims) :] if dims else []), start=1):
            dims[-i] = -(-dims[-i] // size) * size
        return prod(dims) * self.itemsize


class Operation(NamedTuple):
    """One line of a computation."""

    name: str
    results: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]  # names
    text: str  # what stands in the parentheses
    attributes: str
    is_root: bool

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that it calls, but for conditions of loops."""
        branches = _BRANCHES.search(self.attributes)
        return (*_CALLED.findall(self.attributes), *(re.findall(r"[\w.\-]+", branches[1]) if branches else ()))


Computation = dict[str, Operation]


class Program(NamedTuple):
    """All computations, by name."""

    computations: dict[str, Computation]
    entry: str

    def always_run(self, loops: int = 0, name: str = "") -> Iterator[Operation]:
        """The operations of a computation, by default of the whole program, each once.

        Without those in branches and in loops, of which the first `loops`, one within another, are entered. The
        condition of a loop runs at least once.
        """
        for operation in self.computations[name or self.entry].values():
            yield operation
            is_loop = operation.opcode == "while"
            for condition in _CONDITION.findall(operation.attributes):
                yield from self.always_run(name=condition)
            if operation.opcode in ("call", "async-start") or (is_loop and loops):
                for called in operation.called:
                    yield from self.always_run(loops - is_loop, called)


def parse(text: str) -> Program:
    """Reads what `jax.stages.Compiled.as_text` returns."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
            if header and not line.startswith("HloModule"):
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif match := re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line):
            current[match[2]] = _operation(match[2], line[match.end() :], is_root=bool(match[1]))
    return Program(computations, entry)


def _operation(name: str, text: str, is_root: bool) -> Operation:
    """`(f32[64]{0}, bf16[…]{…}) fusion(%a, %b), kind=kLoop, calls=%c`."""
    end = _closing(text, 0) + 1 if text[0] == "(" else text.index(" ")
    results, text = text[:end], text[end:].lstrip()
    opened = text.index("(")
    closed = _closing(text, opened)
    inside = text[opened + 1 : closed]
    arrays = tuple(
        Array(dtype, tuple(int(size) for size in dims.split(",") if size), layout)
        for dtype, dims, layout in _ARRAY.findall(results)
        if dtype in _WIDTHS
    )
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Operation(name, arrays, text[:opened], operands, inside, text[closed + 1 :], is_root)


def _closing(text: str, start: int) -> int:
    """The position of the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if not depth:
            return i
    raise ValueError(f"no closing bracket: {text}")
