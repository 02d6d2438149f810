"""The main-memory traffic of a compiled program: the bytes that each of its kernels reads and writes.

A kernel reads each of its operands once, or what it takes of it where it takes slices only, and writes each of its
results once. What a TPU's compiler keeps on the chip moves no byte. Kernels inside loops and branches are counted
once each, and separately, since nobody knows how often they run. What the program does not tell: caches (a GPU often
finds an array below some 50 MB in its L2), what a convolution reads twice, and time.
"""

import re
from typing import NamedTuple

from benchmarks.compiled.program import Array, Computation, Operation, Program, parse

_NO_KERNEL = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all", "opt-barrier"),
    *("copy-done", "slice-done", "async-done", "async-update", "partition-id", "replica-id", "get-dimension-size"),
}
_SLICES = {"slice", "dynamic-slice", "gather", "slice-start"}
_KIND = re.compile(r"kind=(\w+)|custom_call_target=\"([^\"]*)\"")


class Kernel(NamedTuple):
    """An operation that is launched once."""

    name: str  # "while/…" inside a loop, "conditional/…" inside a branch
    kind: str
    inside: tuple[str, ...]  # the operations that were fused into it
    reads: tuple[tuple[Array, float], ...]  # from main memory; and how many bytes of it
    writes: tuple[tuple[Array, float], ...]

    @property
    def bytes(self) -> float:
        """The bytes that it moves."""
        return sum(size for _, size in (*self.reads, *self.writes))

    @property
    def always_runs(self) -> bool:
        """True if it runs exactly once."""
        return "/" not in self.name


class Traffic(NamedTuple):
    """The traffic of one program."""

    kernels: tuple[Kernel, ...]

    @property
    def launched(self) -> tuple[Kernel, ...]:
        """The kernels outside loops and branches."""
        return tuple(kernel for kernel in self.kernels if kernel.always_runs)

    @property
    def bytes(self) -> float:
        """The bytes that those move."""
        return sum(kernel.bytes for kernel in self.launched)

    @property
    def bytes_in_loops(self) -> float:
        """The bytes that a single run of every loop's body and every branch moves."""
        return sum(kernel.bytes for kernel in self.kernels) - self.bytes


def traffic(text: str) -> Traffic:
    """Counts in the text of an optimised HLO program."""
    program = parse(text)
    return Traffic(tuple(_kernels(program, program.entry, "")))


def _kernels(program: Program, name: str, prefix: str) -> list[Kernel]:
    computation, found = program.computations[name], []
    for operation in computation.values():
        if operation.opcode in ("call", "async-start"):
            for called in operation.called:
                found += _kernels(program, called, prefix)
        elif operation.opcode in ("while", "conditional"):
            for called in operation.called:
                found += _kernels(program, called, f"{prefix}{operation.opcode}/")
        elif operation.opcode not in _NO_KERNEL:
            found.append(_kernel(program, computation, operation, prefix))
    return found


def _kernel(program: Program, computation: Computation, operation: Operation, prefix: str) -> Kernel:
    is_fusion = operation.opcode == "fusion"
    body = program.computations[operation.called[0]] if is_fusion else {}
    parameters = {int(o.text): o for o in body.values() if o.opcode == "parameter"}
    reads = []
    for i, operand in enumerate(operation.operands):
        source = computation[operand].results
        if len(source) == 1 and source[0].in_main_memory:
            part = _part_read(body, parameters[i]) if is_fusion else _part_sliced(operation, operand, source[0])
            reads.append((source[0], part * source[0].bytes))
    # A start of a copy has (to, from, …) as its result, that of a slice (from, to, …).
    results = {"copy-start": operation.results[:1], "slice-start": operation.results[1:2]}
    written = results.get(operation.opcode, operation.results)
    parts = _parts_written(body, len(written)) if is_fusion else [_part_updated(operation, computation)] * len(written)
    writes = [(a, part * a.bytes) for a, part in zip(written, parts, strict=True) if a.in_main_memory]
    kind = _KIND.search(operation.attributes)
    label = f"{operation.opcode} {(kind[1] or kind[2]) if kind else ''}".strip()
    return Kernel(prefix + operation.name, label, tuple(_inside(program, operation)), tuple(reads), tuple(writes))


def _inside(program: Program, operation: Operation) -> list[str]:
    """The operations of a fusion, and of the fusions in it."""
    if operation.opcode != "fusion":
        return [operation.opcode]
    return [o for part in program.computations[operation.called[0]].values() for o in _inside(program, part)]


def _part_read(body: Computation, array: Operation) -> float:
    """The share of an array that a fusion reads: less than 1 where all its users take slices, or overwrite a part."""
    whole, read = array.results[0].elements, 0.0
    for user in body.values():
        if array.name in user.operands:
            if user.opcode == "bitcast":
                read += _part_read(body, user) * whole
            else:
                read += _part_sliced(user, array.name, array.results[0]) * whole
    return min(1.0, read / whole) if whole else 0.0


def _part_sliced(user: Operation, name: str, array: Array) -> float:
    """The share of an operand that one operation reads."""
    if user.operands[0] == name and name not in user.operands[1:]:
        if user.opcode in _SLICES:
            return user.results[user.opcode == "slice-start"].elements / max(1, array.elements)
        if user.opcode == "dynamic-update-slice":
            return 0.0
    return 1.0


def _parts_written(body: Computation, count: int) -> list[float]:
    """The share of each result that a fusion writes: less than 1 where it updates a slice in place."""
    (root,) = (o for o in body.values() if o.is_root)
    roots = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return [_part_updated(o, body) for o in roots] if len(roots) == count else [1.0] * count


def _part_updated(operation: Operation, computation: Computation) -> float:
    while operation.opcode == "bitcast" and operation.operands[0] in computation:
        operation = computation[operation.operands[0]]
    if operation.opcode != "dynamic-update-slice":
        return 1.0
    return computation[operation.operands[1]].results[0].elements / max(1, operation.results[0].elements)
