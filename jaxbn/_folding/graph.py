"""A traced network as a flat list of operations, in which everything computed from weights alone is already evaluated.

Calls (`jit`, `checkpoint`, derivative rules) are replaced by their bodies, so that a norm and the kernel next to it are
in one list. A call without weights among its arguments, such as relu, remains a call and keeps its derivative rule.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxbn._axes import is_known
from jaxbn._kernels import along

_INLINED = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"}
_WITH_DERIVATIVE = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
# Known only when the network runs; or replaced by their bodies, whose operations JAX has compiled before.
_NOT_EVALUATED = {"dim_as_value", "platform_index"} | _INLINED | _WITH_DERIVATIVE
# The operations of a norm on its vectors, evaluated by NumPy, which compiles nothing.
_BY_NUMPY: dict[str, Callable[..., Any]] = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "neg": np.negative},
    **{"sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "eq": np.equal, "lt": np.less},
    **dict.fromkeys(("stop_gradient", "name", "copy"), lambda x: x),
    "select_n": lambda which, first, second: np.where(which, second, first),
}
# The operations of a max pooling. A derivative rule around only these is not needed in evaluation.
_TRANSPARENT = {
    *("max", "slice", "squeeze", "reshape", "transpose", "broadcast_in_dim", "reduce_max", "reduce_window_max"),
    *("name", "copy", "concatenate", "gather"),
}


@dataclass(eq=False, frozen=True)
class Constant:
    """A value that is computed from the weights alone.

    The array broadcasts to the shape: it has size one along axes on which it does not vary, or no axes at all. So the
    vectors of a norm never take the size of a batch.
    """

    array: Any  # a JAX or NumPy array
    shape: tuple[Any, ...]

    @property
    def wide(self) -> np.ndarray:
        """The array in float64 or complex128."""
        array = np.asarray(self.array)
        return array.astype(np.complex128 if jnp.issubdtype(array.dtype, jnp.complexfloating) else np.float64)

    @property
    def is_whole(self) -> bool:
        """True if the array has the full shape."""
        return self.array.shape == self.shape


@dataclass(eq=False)
class Value:
    """A value that is only known when the network runs."""

    shape: tuple[Any, ...]
    dtype: Any
    origin: "Operation | None" = None  # None for an argument

    @property
    def is_floating(self) -> bool:
        """True if the value holds floating or complex numbers."""
        return jnp.issubdtype(self.dtype, jnp.inexact)


Operand = Value | Constant
OperandT = TypeVar("OperandT")


@dataclass(eq=False)
class Operation:
    """One equation of the trace, or the folded form of one that contains several."""

    name: str
    equation: core.JaxprEqn
    jaxpr: core.Jaxpr  # the jaxpr that contains the equation
    operands: list[Operand]
    scope: str
    results: list[Value] = field(default_factory=list)
    # If norms inside it were folded: the function to run instead, which also takes these weights.
    inside: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    weights: Sequence[Constant] = ()
    norms: Sequence[Any] = ()

    def variable(self, operands: Sequence[OperandT]) -> list[OperandT]:
        """The operands that are not literals of the equation."""
        if self.inside:
            return list(operands)
        atoms = zip(operands, self.equation.invars, strict=True)
        return [operand for operand, atom in atoms if not isinstance(atom, core.Literal)]

    def run(self, arrays: Sequence[Any]) -> Sequence[Any]:
        """The results, given the variable operands and the weights."""
        return self.inside(arrays) if self.inside else run(self.jaxpr, self.equation, arrays)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the primitive."""
        return self.equation.params

    @property
    def result_types(self) -> list[Any]:
        """The shapes and types of the results."""
        return [variable.aval for variable in self.equation.outvars]

    @property
    def called(self) -> str:
        """The name of the operation for a person."""
        if self.name in _WITH_DERIVATIVE:
            return _body(self)[0].debug_info.func_name
        return str(self.params.get("name") or self.name)


class Graph(NamedTuple):
    """A network as inputs, operations and outputs."""

    inputs: list[Value]
    operations: list[Operation]
    outputs: list[Operand]


def read(closed: core.ClosedJaxpr, operands: Sequence[Constant | None], scope: str = "") -> Graph:
    """The graph of a trace.

    Args:
        closed: the trace.
        operands: for each argument of the trace, its constant value, or None if it remains an argument.
        scope: the place of the trace in the network.

    Raises:
        TypeError: a weight is a tracer.

    """
    arguments = zip(operands, closed.in_avals, strict=True)
    given = [operand or Value(aval.shape, aval.dtype) for operand, aval in arguments]
    inputs = [operand for operand in given if isinstance(operand, Value)]
    operations: list[Operation] = []
    with jax.ensure_compile_time_eval():
        outputs = _read(operations, closed.jaxpr, closed.consts, given, scope)
    return Graph(inputs, living(operations, outputs, lambda operation: operation.operands), outputs)


def living(
    operations: Sequence[Operation],
    outputs: Iterable[object],
    taken: Callable[[Operation], Iterable[object]],
) -> list[Operation]:
    """The operations that the outputs depend on, and those with side effects.

    Args:
        operations: all operations, in order.
        outputs: the values that are needed.
        taken: a function that returns the values that an operation reads.

    """
    needed = set(outputs)
    found = []
    for operation in reversed(operations):
        if operation.equation.effects or not needed.isdisjoint(operation.results):
            needed.update(taken(operation))
            found.append(operation)
    return found[::-1]


def run(jaxpr: core.Jaxpr, equation: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """The results of one equation, given its operands that are not literals."""
    variables = [v for v in equation.invars if not isinstance(v, core.Literal)]
    distinct = dict(zip(variables, operands, strict=True))
    alone = jaxpr.replace(constvars=(), invars=list(distinct), outvars=equation.outvars, eqns=[equation])
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*distinct.values())


def constant(array: Any) -> Constant:  # noqa: ANN401
    """A weight as a constant.

    Raises:
        TypeError: it is a tracer.

    """
    if isinstance(array, Tracer):
        raise TypeError(
            "function must hold weights with known values; got a traced array. Call fold_network outside jax.jit, "
            "jax.grad and jax.vmap, and jit the function that it returns"
        )
    return Constant(array, np.shape(array))


def _read(
    operations: list[Operation], jaxpr: core.Jaxpr, consts: Sequence[Any], given: Sequence[Operand], scope: str
) -> list[Operand]:
    """Append the operations of a trace, and return its results."""
    found: dict[Any, Operand] = dict(zip(jaxpr.invars, given, strict=True))
    found.update((variable, constant(array)) for variable, array in zip(jaxpr.constvars, consts, strict=True))

    def operand(atom: core.Var | core.Literal) -> Operand:
        return _literal(atom) if isinstance(atom, core.Literal) else found[atom]

    for equation in jaxpr.eqns:
        inner = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        operation = Operation(equation.primitive.name, equation, jaxpr, [operand(a) for a in equation.invars], inner)
        found.update(zip(equation.outvars, _results(operations, operation), strict=True))
    return [operand(atom) for atom in jaxpr.outvars]


def _literal(atom: core.Literal) -> Constant:
    aval: Any = atom.aval
    return Constant(np.asarray(atom.val, aval.dtype), aval.shape)


def _results(operations: list[Operation], operation: Operation) -> list[Operand]:
    """The results of an operation, which is evaluated here, replaced by its body, or appended."""
    evaluated = _evaluated(operation)
    if evaluated is not None:
        return evaluated
    if operation.name in _INLINED or (operation.name in _WITH_DERIVATIVE and _is_of_interest(operation)):
        body, consts = _body(operation)
        return _read(operations, body, consts, operation.operands, operation.scope)
    if operation.name in ("scan", "cond"):
        from jaxbn._folding.control import fold_inside  # here, since that module imports this one

        fold_inside(operation)
    operation.results = [Value(aval.shape, aval.dtype, operation) for aval in operation.result_types]
    operations.append(operation)
    return list(operation.results)


def _evaluated(operation: Operation) -> list[Operand] | None:
    """The results as constants; None if they are not constant, or should not be evaluated yet."""
    constants = [o for o in operation.operands if isinstance(o, Constant)]
    results = operation.result_types
    if len(constants) < len(operation.operands) or operation.equation.effects or operation.name in _NOT_EVALUATED:
        return None
    if operation.name == "broadcast_in_dim" and len(constants) == 1:
        return [_broadcast(constants[0], results[0].shape, operation.params["broadcast_dimensions"])]
    if operation.name in _BY_NUMPY and all(_is_numeric(c.array) for c in constants):
        with np.errstate(all="ignore"):
            array = _BY_NUMPY[operation.name](*(np.asarray(c.array) for c in constants))
        return [Constant(array.astype(results[0].dtype, copy=False), results[0].shape)]
    sizes = [size for array in (*results, *constants) for size in array.shape]
    if not all(map(is_known, sizes)) or not (constants or operation.name == "iota"):
        return None
    arrays = [c.array if c.is_whole else jnp.broadcast_to(c.array, c.shape) for c in operation.variable(constants)]
    return [constant(array) for array in run(operation.jaxpr, operation.equation, arrays)]


def _broadcast(given: Constant, shape: tuple[Any, ...], axes: Sequence[int]) -> Constant:
    """`broadcast_in_dim`, with size one along axes on which the result does not vary."""
    if given.array.ndim == 0:
        return Constant(given.array, shape)
    return Constant(along(given.array, tuple(axes), len(shape)), shape)


def _is_numeric(array: Any) -> bool:  # noqa: ANN401
    return jnp.issubdtype(array.dtype, jnp.inexact) or array.dtype == bool


def _body(operation: Operation) -> tuple[core.Jaxpr, Sequence[Any]]:
    """The computation that is called, and its constants."""
    body = next(operation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in operation.params)
    return (body.jaxpr, body.consts) if isinstance(body, core.ClosedJaxpr) else (body, ())


def _is_of_interest(operation: Operation) -> bool:
    """True if a call has weights among its arguments, or is a max pooling that a norm's multiplier may pass."""
    body, consts = _body(operation)
    constants = [o for o in operation.operands if isinstance(o, Constant)]
    weights = any(np.shape(array) for array in consts) or any(o.shape for o in constants)
    return weights or len(constants) == len(operation.operands) or _is_transparent(body)


def _is_transparent(jaxpr: core.Jaxpr) -> bool:
    """True if it contains only operations of a max pooling."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in _INLINED:
            inner = equation.params["jaxpr"]
            if not _is_transparent(inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner):
                return False
        elif equation.primitive.name not in _TRANSPARENT or any(map(_is_number, equation.invars)):
            return False
    return True


def _is_number(atom: Any) -> bool:  # noqa: ANN401
    """True if it is a floating literal, such as the 0 of relu, and not an index."""
    return isinstance(atom, core.Literal) and jnp.issubdtype(np.result_type(atom.val), jnp.inexact)
