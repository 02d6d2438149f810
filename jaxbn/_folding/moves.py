"""The folding itself: multipliers move into the kernels in front of them or, with their offsets, into those behind.

A move may pass several operations, such as a pooling or a reshape. It is undone if it does not end in kernels.
"""

from typing import Any

import numpy as np

from jaxbn._folding.graph import Constant, Value
from jaxbn._folding.passing import described
from jaxbn._folding.rules import behind, in_front
from jaxbn._folding.shapes import Blocked
from jaxbn._folding.terms import Network, Node, Norm, Term, Use

_NOT_FINITE = "numbers that are not finite"


class _Edits:
    """Changes of a network that can be undone."""

    def __init__(self) -> None:
        self.undo: list[tuple[Any, ...]] = []
        self.kernels: list[str] = []

    def term(self, use: Use, term: Term) -> None:
        self.undo.append((use, use.term, use.touched))
        use.term, use.touched = term, True

    def constant(self, node: Node, position: int, constant: Constant) -> None:
        self.undo.append((node, position, node.operands[position]))
        node.operands[position] = constant
        self.kernels.append(described(node))

    def rollback(self) -> None:
        for target, first, second in reversed(self.undo):
            if isinstance(target, Use):
                target.term, target.touched = first, second
            else:
                target.operands[first] = second


def fold(network: Network) -> list[Norm]:
    """Fold all norms that can be folded, in place. Return the norms in order; the folded ones have `kernels`."""
    norms = dict.fromkeys(n for node in network.nodes for u in node.uses for n in u.term.norms if n.shifted)
    for base in reversed(network.uses):
        moved = [n for use in network.uses[base] if use.term.has_multiplier for n in use.term.norms if n.shifted]
        _attempt(dict.fromkeys(moved), "in_front", _move_to_front, network, base)
    for node in network.nodes:
        for use in node.uses:
            moved = [n for n in use.term.norms if n.shifted and not n.kernels] if use.term.has_multiplier else []
            _attempt(dict.fromkeys(moved), "behind", _move_behind, network, use)
    return list(norms)


def _attempt(norms: dict[Norm, None], side: str, move: Any, network: Network, start: Any) -> None:  # noqa: ANN401
    """Move these norms, or record in them why they cannot be moved."""
    if not norms:
        return
    edits = _Edits()
    try:
        move(network, edits, start)
    except Blocked as reason:
        edits.rollback()
        for norm in norms:
            setattr(norm, side, getattr(norm, side) or str(reason))
    else:
        for norm in norms:
            norm.kernels.extend(edits.kernels)


def _move_to_front(network: Network, edits: _Edits, base: Value) -> None:
    """Replace a base by the multiple of it that all its uses have in common."""
    pending = {base}
    while pending:
        value = max(pending, key=lambda v: network.origins[v].number if v in network.origins else -1)
        pending.remove(value)
        uses = network.uses[value]
        multiplier = uses[0].term.multiplier
        if not all(use.term.is_finite for use in uses):
            raise Blocked(_NOT_FINITE)
        if not all(np.array_equal(use.term.multiplier, multiplier) for use in uses):
            raise Blocked("others read what it normalises")
        if not (multiplier != 1).any():
            continue
        node = network.origins.get(value)
        if node is None:
            raise Blocked("an argument of the function")
        if len({use.value for use in node.uses}) < len(node.uses):
            raise Blocked(described(node))
        for use in uses:
            edits.term(use, use.term._replace(multiplier=np.ones_like(multiplier)))
        for position, given in in_front(node, multiplier).items():
            operand = node.operands[position]
            if isinstance(given, Constant):
                edits.constant(node, position, given)
            elif isinstance(operand, Use):
                edits.term(operand, operand.term.times(given))
                pending.add(operand.term.base)
            else:
                raise Blocked(described(node))


def _move_behind(network: Network, edits: _Edits, start: Use) -> None:
    """Replace the operand of a node by its base, and the result of the node by a term of it."""
    pending = [start]
    while pending:
        use = pending.pop()
        node, term = use.node, use.term
        if term.is_trivial:
            continue
        if not term.is_finite:
            raise Blocked(_NOT_FINITE)
        result = behind(node, node.operands.index(use), term.multiplier, term.offset)
        for position, constant in result.constants.items():
            edits.constant(node, position, constant)
        edits.term(use, term._replace(multiplier=np.ones_like(term.multiplier), offset=np.zeros_like(term.offset)))
        (value,) = node.results
        for other in network.uses.get(value, ()):
            edits.term(other, other.term.of(result.multiplier, result.offset))
            if (result.multiplier != 1).any():
                pending.append(other)
