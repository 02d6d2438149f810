"""A folded network, ready to run: its operations and, separately, the weights that they take."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxbn._folding.graph import Constant, Graph, Operand, Operation, Value, living, read
from jaxbn._folding.moves import fold
from jaxbn._folding.terms import TERM, Node, Norm, Term, Use, read_terms


class Program(NamedTuple):
    """A function of flat weights and flat inputs, with the weights and the norms."""

    run: Callable[[Sequence[Any], Sequence[Any]], list[Any]]
    weights: tuple[jax.Array, ...]
    norms: tuple[Norm, ...]

    @property
    def decisions(self) -> tuple[Any, ...]:
        """A value that is equal for two programs if and only if they take the same weights."""
        forms = [(weight.shape, weight.dtype) for weight in self.weights]
        return forms, [(norm.scope, norm.features, norm.kept, norm.kernels) for norm in self.norms]


def folded(closed: core.ClosedJaxpr, operands: Sequence[Constant | None], scope: str = "") -> Program:
    """Fold the norms of a traced network.

    Args:
        closed: the trace.
        operands: for each argument of the trace, its constant value, or None if it remains an argument.
        scope: the place of the trace in the network.

    """
    graph = read(closed, operands, scope)
    network = read_terms(graph)
    norms = fold(network)
    for use in (use for node in network.nodes for use in node.uses if use.term.has_multiplier):
        for norm in use.term.norms:
            norm.kept = True
    program = _Writer(graph, network.nodes)
    inner = [norm for operation in graph.operations for norm in operation.norms]
    return Program(partial(_run, graph.inputs, program.steps, program.outputs), program.weights(), (*norms, *inner))


class _Slot(NamedTuple):
    """A constant of a program: one of its weights, broadcast to a shape."""

    position: int
    shape: tuple[Any, ...]


class _Affine(NamedTuple):
    """multiplier · base + offset, computed in the type `computed` and converted to `dtype`."""

    base: Value
    multiplier: _Slot | None
    offset: _Slot | None
    computed: Any
    dtype: Any


_Given = Value | _Slot | _Affine


class _Step(NamedTuple):
    """An operation; without a function, its operands are its results."""

    function: Callable[[Sequence[Any]], Sequence[Any]] | None
    operands: list[_Given]
    results: list[Value]


class _Writer:
    """Arranges the steps of a program in order, and its weights in a list."""

    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        self.arrays: dict[int, tuple[int, Any]] = {}
        self.by_operation = {node.operation: node for node in nodes}
        results = self.by_operation.pop(None)
        asked = map(self._taken, results.operands)
        needed = living(graph.operations, asked, lambda operation: map(self._taken, self._operands(operation)))
        self.steps = [self._step(operation) for operation in needed]
        self.outputs = [self._given(operand) for operand in results.operands]

    def weights(self) -> tuple[jax.Array, ...]:
        with jax.ensure_compile_time_eval():
            return tuple(jnp.asarray(array) for _, array in self.arrays.values())

    def _operands(self, operation: Operation) -> Sequence[Operand | Use]:
        """The operands of a node; those of the trace if the operation is part of an unchanged term."""
        node = self.by_operation.get(operation)
        return operation.operands if node is None or (node.name == TERM and not node.uses[0].touched) else node.operands

    def _taken(self, operand: Operand | Use) -> Value | None:
        if isinstance(operand, Use):
            return operand.term.base if operand.touched else operand.value
        return operand if isinstance(operand, Value) else None

    def _step(self, operation: Operation) -> _Step:
        operands = self._operands(operation)
        if operands is not operation.operands and self.by_operation[operation].name == TERM:
            return _Step(None, [self._given(operands[0])], operation.results)
        given = [self._given(operand) for operand in operation.variable(operands)]
        given.extend(self._slot(weight) for weight in operation.weights)
        return _Step(operation.run, given, operation.results)

    def _given(self, operand: Operand | Use) -> _Given:
        if isinstance(operand, Constant):
            return self._slot(operand)
        if isinstance(operand, Value):
            return operand
        if not operand.touched:
            return operand.value
        return self._affine(operand.term, operand.value)

    def _affine(self, term: Term, value: Value) -> _Given:
        if term.is_trivial and term.base.dtype == value.dtype:
            return term.base
        multiplier = self._coefficients(term.multiplier, term.dtype) if term.has_multiplier else None
        offset = self._coefficients(term.offset, term.dtype) if term.has_offset else None
        return _Affine(term.base, multiplier, offset, term.dtype, value.dtype)

    def _coefficients(self, coefficients: np.ndarray, dtype: Any) -> _Slot:  # noqa: ANN401
        array = coefficients.astype(dtype)
        return self._slot(Constant(array, array.shape))

    def _slot(self, constant: Constant) -> _Slot:
        position, _ = self.arrays.setdefault(id(constant.array), (len(self.arrays), constant.array))
        return _Slot(position, constant.shape)


def _run(
    inputs: Sequence[Value],
    steps: Sequence[_Step],
    outputs: Sequence[_Given],
    weights: Sequence[Any],
    given: Sequence[Any],
) -> list[Any]:
    found: dict[Value, Any] = dict(zip(inputs, given, strict=True))

    def value(operand: _Given) -> Any:  # noqa: ANN401
        if isinstance(operand, _Slot):
            weight = weights[operand.position]
            return weight if np.shape(weight) == operand.shape else jnp.broadcast_to(weight, operand.shape)
        if isinstance(operand, Value):
            return found[operand]
        result = found[operand.base].astype(operand.computed)
        result = result if operand.multiplier is None else result * value(operand.multiplier)
        result = result if operand.offset is None else result + value(operand.offset)
        return result.astype(operand.dtype)

    for function, operands, results in steps:
        arrays = [value(operand) for operand in operands]
        found.update(zip(results, function(arrays) if function else arrays, strict=True))
    return [value(operand) for operand in outputs]
