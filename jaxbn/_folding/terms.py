"""Affine relations between values: multiplier · base + offset, with one multiplier and one offset per channel.

A norm in evaluation is such a map in every notation: (x − μ) · m + β, or x · m + (β − μ · m), or with the steps of a
max pooling in between. A bias is another. Each result of a chain of such operations is a *term* of its *base*, the
value at the beginning of the chain. A *use* is a place where any other operation takes a value. Folding changes the
terms of uses.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxbn._folding.graph import Constant, Graph, Operand, Operation, Value


@dataclass(eq=False)
class Norm:
    """A norm in evaluation: a multiplication of each channel, and an addition to each."""

    scope: str
    features: tuple[int, ...]
    shifted: bool  # False as long as nothing is added: a scale alone is not a norm
    kernels: list[str] = field(default_factory=list)  # the kernels that it was folded into
    in_front: str = ""  # why it cannot be folded in front
    behind: str = ""  # why it cannot be folded behind
    kept: bool = False
    layers: int = 1  # the number of scanned layers with this norm

    def keep(self, in_front: str, behind: str) -> None:
        """Keep the norm, for these reasons."""
        self.kept, self.in_front, self.behind, self.kernels = True, in_front, behind, []


class Term(NamedTuple):
    """multiplier · base + offset, with coefficients as in `shapes`, in float64 or complex128."""

    base: Value
    multiplier: np.ndarray
    offset: np.ndarray
    dtype: Any  # the widest that the value passes through
    norms: tuple[Norm, ...] = ()
    shifted: bool = False  # whether something was added to each channel
    is_product: bool = False  # whether the last operation was a multiplication

    @property
    def has_multiplier(self) -> bool:
        """True if the multiplier differs from 1 anywhere."""
        return bool((self.multiplier != 1).any())

    @property
    def has_offset(self) -> bool:
        """True if the offset differs from 0 anywhere."""
        return bool((self.offset != 0).any())

    @property
    def is_finite(self) -> bool:
        """True if all coefficients are finite; otherwise the term stays as it was traced."""
        return bool(np.isfinite(self.multiplier).all() and np.isfinite(self.offset).all())

    @property
    def is_trivial(self) -> bool:
        """True if the term is the base itself."""
        return not self.has_multiplier and not self.has_offset

    def times(self, factor: Any) -> "Term":  # noqa: ANN401
        """The term multiplied by a factor."""
        return self._replace(multiplier=self.multiplier * factor, offset=self.offset * factor)

    def of(self, multiplier: np.ndarray, offset: np.ndarray) -> "Term":
        """The term with multiplier · base + offset in place of its base."""
        return self._replace(multiplier=self.multiplier * multiplier, offset=self.multiplier * offset + self.offset)


@dataclass(eq=False)
class Use:
    """A place where a node takes a value, with the value as a term of its base."""

    node: "Node"
    value: Value
    term: Term
    touched: bool = False  # whether the term differs from the traced computation


@dataclass(eq=False)
class Node:
    """An operation that is not part of a term, a term that several operations take, or the results of the network."""

    operation: Operation | None  # None for the results
    operands: list[Use | Constant]
    results: list[Value]
    name: str
    number: int

    @property
    def uses(self) -> list[Use]:
        """The operands that are not constant."""
        return [operand for operand in self.operands if isinstance(operand, Use)]


class Network(NamedTuple):
    """A graph with its nodes and their terms."""

    graph: Graph
    nodes: list[Node]
    origins: dict[Value, Node]
    uses: dict[Value, list[Use]]  # of each base


TERM, RESULTS = "term", "results"  # names of nodes, different from those of all primitives


def read_terms(graph: Graph) -> Network:
    """Find the terms of a graph."""
    taken = Counter(o for operands in _takers(graph) for o in dict.fromkeys(operands) if isinstance(o, Value))
    terms: dict[Value, Term] = {}
    network = Network(graph, [], {}, {})
    for operation in graph.operations:
        term = _term(operation, terms)
        if term is None:
            _add(network, terms, operation, operation.operands, operation.name)
            continue
        (result,) = operation.results
        terms[result] = term
        if taken[result] > 1:  # it becomes a base, which can only change for all its users at once
            _add(network, terms, operation, [result], TERM)
            del terms[result]
    _add(network, terms, None, graph.outputs, RESULTS)
    return network


def trivial(value: Value) -> Term:
    """A value as a term of itself."""
    shape = (1,) * len(value.shape)
    return Term(value, np.ones(shape), np.zeros(shape), value.dtype)


def _takers(graph: Graph) -> Iterator[list[Operand]]:
    yield from (operation.operands for operation in graph.operations)
    yield graph.outputs


def _add(
    network: Network, terms: Mapping[Value, Term], operation: Operation | None, operands: list[Operand], name: str
) -> None:
    """Append a node."""
    node = Node(operation, [], operation.results if operation else [], name, len(network.nodes))
    for operand in operands:
        if isinstance(operand, Constant):
            node.operands.append(operand)
            continue
        use = Use(node, operand, terms.get(operand) or trivial(operand))
        node.operands.append(use)
        network.uses.setdefault(use.term.base, []).append(use)
    network.nodes.append(node)
    network.origins.update((result, node) for result in node.results)


def _term(operation: Operation, terms: Mapping[Value, Term]) -> Term | None:
    """The result of an operation as a term; None if it is not a term."""
    rule = _RULES.get(operation.name)
    if rule is None or len(operation.results) != 1:
        return None
    (result,) = operation.results
    values = [o for o in operation.operands if isinstance(o, Value)]
    if not all(v.is_floating and v.shape == result.shape for v in (*values, result)):
        return None
    given = [o if isinstance(o, Constant) else terms.get(o) or trivial(o) for o in operation.operands]
    with np.errstate(all="ignore"):
        term = rule(operation, given)
    if term is None:
        return None
    return term._replace(dtype=jnp.promote_types(term.dtype, result.dtype))


def _add_rule(operation: Operation, given: list[Any]) -> Term | None:
    left, right = given
    sign = -1 if operation.name == "sub" else 1
    if isinstance(left, Constant):
        return _moved(right.times(sign), left, 1)
    if isinstance(right, Constant):
        return _moved(left, right, sign)
    if left.base is not right.base or not (left.norms or right.norms):
        return None
    total = left.multiplier + sign * right.multiplier, left.offset + sign * right.offset
    return left._replace(multiplier=total[0], offset=total[1], norms=left.norms + right.norms, is_product=False)


def _moved(term: Term, constant: Constant, sign: int) -> Term:
    """A term plus or minus a constant."""
    moved = term._replace(offset=term.offset + sign * _shaped(constant, term), is_product=False)
    if not _has_channels(constant):
        return moved
    for norm in term.norms[-1:]:
        norm.shifted = True
    return moved._replace(shifted=True)


def _mul_rule(operation: Operation, given: list[Any]) -> Term | None:
    left, right = given
    if isinstance(left, Constant) and operation.name == "mul":
        left, right = right, left
    if not isinstance(right, Constant) or isinstance(left, Constant):
        return None
    factor = _shaped(right, left)
    scaled = left.times(factor if operation.name == "mul" else 1 / factor)
    if not _has_channels(right):
        return scaled
    if left.is_product and left.norms:
        return scaled  # (x − μ) · 1/√(σ² + ε) · γ is one norm
    norm = Norm(operation.scope, tuple(n for n in factor.shape if n != 1) or (1,), left.shifted)
    return scaled._replace(norms=(*left.norms, norm), is_product=True)


def _select_rule(_: Operation, given: list[Any]) -> Term | None:
    """A selection between two terms that is the same for all entries of a channel."""
    which, *cases = given
    if not isinstance(which, Constant) or which.array.dtype != bool or len(cases) != 2:
        return None
    first, second = cases
    if isinstance(first, Constant) or isinstance(second, Constant) or first.base is not second.base:
        return None
    chosen = np.asarray(which.array).reshape(
        (1,) * first.multiplier.ndim if which.array.ndim == 0 else which.array.shape
    )
    return first._replace(
        multiplier=np.where(chosen, second.multiplier, first.multiplier),
        offset=np.where(chosen, second.offset, first.offset),
        norms=tuple(dict.fromkeys(first.norms + second.norms)),
        is_product=False,
    )


def _convert_rule(operation: Operation, given: list[Any]) -> Term | None:
    """A conversion to another type, which may be narrower: coefficients moved into a kernel are not rounded by it."""
    (term,) = given
    (result,) = operation.results
    complex_ = [jnp.issubdtype(dtype, jnp.complexfloating) for dtype in (result.dtype, term.dtype)]
    return None if term.is_trivial or complex_[0] != complex_[1] else term


def _shaped(constant: Constant, term: Term) -> np.ndarray:
    """The constant as coefficients with the dimensions of the term."""
    coefficients = constant.wide
    return coefficients if coefficients.ndim else coefficients.reshape((1,) * term.multiplier.ndim)


def _has_channels(constant: Constant) -> bool:
    """True if the constant is an array, and not one number for all entries."""
    return constant.array.ndim > 0


_RULES: dict[str, Any] = {
    **dict.fromkeys(("add", "add_any", "sub"), _add_rule),
    **dict.fromkeys(("mul", "div"), _mul_rule),
    "neg": lambda _, given: given[0].times(-1),
    "name": lambda _, given: given[0],
    "select_n": _select_rule,
    "convert_element_type": _convert_rule,
}
