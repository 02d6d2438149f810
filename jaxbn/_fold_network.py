"""Evaluation of a whole network without its norms."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from jaxbn._folding.program import Program, folded
from jaxbn._folding.terms import Norm


class FoldedNorm(NamedTuple):
    """What became of one norm.

    Attributes:
        name: its place in the network, as `jax.named_scope` and Linen name it; else a number.
        features: its number of features, for each of its feature axes.
        detail: the kernels that it was folded into, or why it was not.

    """

    name: str
    features: tuple[int, ...]
    detail: str


class FoldReport(NamedTuple):
    """What became of the norms of a network."""

    folded: tuple[FoldedNorm, ...]
    kept: tuple[FoldedNorm, ...]

    def __str__(self) -> str:
        """One line for each norm."""
        total = len(self.folded) + len(self.kept)
        lines = [f"{len(self.folded)} of {total} norms folded"]
        lines += [f"folded  {norm.name}: {norm.detail}" for norm in self.folded]
        lines += [f"kept    {norm.name}: {norm.detail}" for norm in self.kept]
        return "\n".join(lines)


def fold_network(function: Callable[..., Any], *arguments: Any) -> tuple[Partial, FoldReport]:  # noqa: ANN401
    """Folds."""
    network = _Network(function)
    program = network.trace(arguments)
    network.decisions = program.decisions
    return Partial(network, program.weights), _report(program.norms)


class _Traced(NamedTuple):
    run: Callable[..., list[Any]]
    structure: Any
    weights: tuple[jax.Array, ...] | None


class _Network:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.decisions: Any = None
        self.traces: dict[Any, _Traced] = {}

    def __call__(self, weights: tuple[jax.Array, ...], *arguments: Any) -> Any:  # noqa: ANN401
        leaves, structure = jax.tree.flatten(arguments)
        key = structure, tuple(jax.typeof(leaf) for leaf in leaves)
        if key not in self.traces:
            self.trace(arguments)
        traced = self.traces[key]
        results = traced.run(weights if traced.weights is None else traced.weights, leaves)
        return jax.tree.unflatten(traced.structure, results)

    def trace(self, arguments: tuple[Any, ...]) -> Program:
        """Traces the function for arguments of these shapes, and folds."""
        closed, results = jax.make_jaxpr(self.function, return_shape=True)(*arguments)
        program = folded(closed, [None] * len(closed.in_avals))
        own = self.decisions is not None and program.decisions != self.decisions
        key = jax.tree.structure(arguments), tuple(closed.in_avals)
        run = jax.jit(program.run, inline=True)
        self.traces[key] = _Traced(run, jax.tree.structure(results), program.weights if own else None)
        return program


def _report(norms: tuple[Norm, ...]) -> FoldReport:
    folded_norms, kept = [], []
    for number, norm in enumerate(norms, 1):
        name = norm.scope or f"norm {number}"
        if norm.kept:
            kept.append(FoldedNorm(name, norm.features, f"in front of it {norm.in_front}, behind it {norm.behind}"))
        else:
            folded_norms.append(FoldedNorm(name, norm.features, "into " + ", ".join(dict.fromkeys(norm.kernels))))
    return FoldReport(tuple(folded_norms), tuple(kept))
