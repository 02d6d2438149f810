"""Values that are affine in each other: multiplier · base + offset, one number of each for each channel.

A norm in evaluation is such a map, however it is written: (x − μ) · m + β, or x · m + (β − μ · m), or with the steps of
a max pooling in between. So is a bias. Each value that a chain of such operations makes is a *term* of the value that
the chain begins with, its base. A *use* is where anything else takes a value. Folding changes the terms of uses.
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
    """A multiplication of each channel, and an addition to each: what a norm is in evaluation."""

    scope: str
    features: tuple[int, ...]
    shifted: bool  # False as long as nothing is added: a mere scale is no norm
    kernels: list[str] = field(default_factory=list)  # that it was folded into
    in_front: str = ""  # why it cannot go there
    behind: str = ""
    kept: bool = False
    layers: int = 1  # of a scan, that have it

    def keep(self, in_front: str, behind: str) -> None:
        """It stays, for these reasons."""
        self.kept, self.in_front, self.behind, self.kernels = True, in_front, behind, []


class Term(NamedTuple):
    """multiplier · base + offset, with coefficients as in `shapes`; of float64 or complex128."""

    base: Value
    multiplier: np.ndarray
    offset: np.ndarray
    dtype: Any  # the widest that the value passes through
    norms: tuple[Norm, ...] = ()
    shifted: bool = False  # something was added to each channel
    is_product: bool = False  # a multiplication was the last to be done

    @property
    def has_multiplier(self) -> bool:
        """Whether the multiplier does anything."""
        return bool((self.multiplier != 1).any())

    @property
    def has_offset(self) -> bool:
        """Whether the offset does anything."""
        return bool((self.offset != 0).any())

    @property
    def is_finite(self) -> bool:
        """Whether it can be moved; else it stays as it was traced."""
        return bool(np.isfinite(self.multiplier).all() and np.isfinite(self.offset).all())

    @property
    def is_trivial(self) -> bool:
        """Whether it is the base itself."""
        return not self.has_multiplier and not self.has_offset

    def times(self, factor: Any) -> "Term":  # noqa: ANN401
        """The term multiplied."""
        return self._replace(multiplier=self.multiplier * factor, offset=self.offset * factor)

    def of(self, multiplier: np.ndarray, offset: np.ndarray) -> "Term":
        """The same of multiplier · base + offset."""
        return self._replace(multiplier=self.multiplier * multiplier, offset=self.multiplier * offset + self.offset)


@dataclass(eq=False)
class Use:
    """Where an operation takes a value that its base was made into."""

    node: "Node"
    value: Value
    term: Term
    touched: bool = False  # the term is not any more what the trace computes


@dataclass(eq=False)
class Node:
    """An operation that is no mere part of a term, or a term that several operations take, or the network's results."""

    operation: Operation | None  # None: the results
    operands: list[Use | Constant]
    results: list[Value]
    name: str
    number: int

    @property
    def uses(self) -> list[Use]:
        """The operands that are not constant."""
        return [operand for operand in self.operands if isinstance(operand, Use)]


class Network(NamedTuple):
    """A graph and its terms."""

    graph: Graph
    nodes: list[Node]
    origins: dict[Value, Node]
    uses: dict[Value, list[Use]]  # of each base


TERM, RESULTS = "term", "results"  # names of nodes that no primitive has


def read_terms(graph: Graph) -> Network:
    """Finds the terms of a graph."""
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
        if taken[result] > 1:  # a base of its own, which can only change for all of them at once
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
    """Appends a node."""
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
    """The result of an operation as a term; None where it is none."""
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
    """Of one of two terms, the same one everywhere in a channel."""
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
    """To another type, which may be narrower: what is moved into a kernel is not rounded in between."""
    (term,) = given
    (result,) = operation.results
    complex_ = [jnp.issubdtype(dtype, jnp.complexfloating) for dtype in (result.dtype, term.dtype)]
    return None if term.is_trivial or complex_[0] != complex_[1] else term


def _shaped(constant: Constant, term: Term) -> np.ndarray:
    """The coefficients, with the dimensions of the term."""
    coefficients = constant.wide
    return coefficients if coefficients.ndim else coefficients.reshape((1,) * term.multiplier.ndim)


def _has_channels(constant: Constant) -> bool:
    """Whether it is an array, and no number that is the same everywhere."""
    return constant.array.ndim > 0


_RULES: dict[str, Any] = {
    **dict.fromkeys(("add", "add_any", "sub"), _add_rule),
    **dict.fromkeys(("mul", "div"), _mul_rule),
    "neg": lambda _, given: given[0].times(-1),
    "name": lambda _, given: given[0],
    "select_n": _select_rule,
    "convert_element_type": _convert_rule,
}
