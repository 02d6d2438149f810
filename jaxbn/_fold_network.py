"""Evaluation of a whole network without its norms."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.tree_util import Partial

from jaxbn._dtypes import described

if TYPE_CHECKING:
    from jaxbn._folding.program import Program
    from jaxbn._folding.terms import Norm


class FoldedNorm(NamedTuple):
    """One norm of a network, and where it went.

    Attributes:
        name: its place in the network, as Linen or `jax.named_scope` call it; elsewhere its number.
        features: the sizes of its feature axes.
        detail: the kernels that it was folded into; or what stands in front of it and behind it, so that it stays.

    Example:
        >>> import jaxbn
        >>> jaxbn.FoldedNorm("norm 1", (64,), "into a convolution").features
        (64,)

    """

    name: str
    features: tuple[int, ...]
    detail: str


class FoldReport(NamedTuple):
    """The norms of a network, folded or kept; printed, it has a line for each.

    Attributes:
        folded: the norms that are gone, in their order.
        kept: the norms that stay, exactly as they were traced.

    Example:
        >>> import jaxbn
        >>> print(jaxbn.FoldReport((jaxbn.FoldedNorm("norm 1", (64,), "into a convolution"),), ()))
        1 of 1 norms folded
        folded  norm 1: into a convolution

    """

    folded: tuple[FoldedNorm, ...]
    kept: tuple[FoldedNorm, ...]

    def __str__(self) -> str:
        """One line for each norm."""
        lines = [f"{len(self.folded)} of {len(self.folded) + len(self.kept)} norms folded"]
        lines += [f"folded  {norm.name}: {norm.detail}" for norm in self.folded]
        lines += [f"kept    {norm.name}: {norm.detail}" for norm in self.kept]
        return "\n".join(lines)


def fold_network(function: Callable[..., Any], *arguments: Any) -> tuple[Partial, FoldReport]:  # noqa: ANN401
    """Folds every norm of a whole network into the convolution or dense layer in front of it, or behind.

    A norm in evaluation multiplies each channel by a constant and adds another, and so does the kernel next to it:

        γ · (K ∗ x + b − μ) / √(σ² + ε) + β = K' ∗ x + b'        as in `jaxbn.fold`
        K ∗ (γ · (x − μ) / √(σ² + ε) + β) + b = K' ∗ x + b'      as in `jaxbn.fold_into_next`

    The function is traced, and its operations are followed: it may be written in plain JAX, Linen, NNX, Haiku or
    Equinox, with this library's norms, Flax's or one's own. **What the function holds are weights; what it is called
    with are inputs.** Weights, and all that follows from them alone, are multiplied here; inputs stay arguments.

        folded, report = jaxbn.fold_network(functools.partial(model.apply, variables, train=False), images)  # Linen
        folded, report = jaxbn.fold_network(model, images)                      # an NNX model, after model.eval()

    Between norm and kernel there may be reshapes, transpositions, slices, conversions of the type, means and sums,
    concatenations and sums of several kernels' results (in front), and max poolings (where γ is not negative, or where
    `batch_norm(..., max_pool=...)` says that pooling belongs to the norm). Layers in `jax.lax.scan` and branches of
    `jax.lax.cond` are followed. A norm stays where an activation is next to it on both sides, where others read what it
    normalises, where the convolution behind it is padded, and inside `while_loop` and `shard_map`, which are not
    looked into.

    Args:
        function: the network in evaluation, whose norms use running statistics. It returns arrays, or a tree of them.
        *arguments: an example of each argument: arrays or `jax.ShapeDtypeStruct`, or trees of them. Only their shapes
            and types count. The folded function takes others as well, if `function` does.

    Returns:
        `(folded, report)`. `folded` takes the arguments of `function` and returns what it does, in the same types. It
        is traced anew for arguments of other shapes, and works under `jax.jit`, `jax.vmap`, `jax.grad` (by its inputs)
        and `jax.export`, with a symbolic batch as well. It is a `jax.tree_util.Partial` whose leaves are the weights:
        passed to a jitted function as an argument, it leaves them out of the compiled program. It also holds
        `function`. `report` lists every norm.

    Raises:
        TypeError: `function` cannot be called; its weights are traced.
        ValueError: `function` holds no weights.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> params, state = jaxbn.init(3)
        >>> state = state._replace(mean=jnp.array([1.0, 2.0, 3.0]), var=jnp.array([4.0, 1.0, 0.25]))
        >>> kernel = jnp.ones((2, 3))
        >>> def network(x):
        ...     y, _ = jaxbn.batch_norm(params, state, x @ kernel, train=False, epsilon=0.0, activation="relu")
        ...     return y
        >>> x = jnp.array([[1.0, 4.0]])
        >>> folded, report = jaxbn.fold_network(network, x)
        >>> print(report)
        1 of 1 norms folded
        folded  norm 1: into a dense kernel
        >>> print(network(x), folded(x))
        [[2. 3. 4.]] [[2. 3. 4.]]
        >>> print(folded.args[0][0])  # the kernel: each column times γ/√(σ² + ε)
        [[0.5 1.  2. ]
         [0.5 1.  2. ]]

    Beware: as with `jaxbn.fold`, rounding grows with |μ|/σ of what a norm is given, where that is far above 1. Compare
    the results on inputs of your own. Weights are gathered on one device. For later training keep the original.

    """
    if not callable(function):
        raise TypeError(
            "function must be a network that can be called with the arguments, such as "
            f"functools.partial(model.apply, variables); got {described(function)}"
        )
    network = _Network(function)
    program = network.trace(arguments)
    if not program.weights:
        raise ValueError(
            "function must hold its weights, and holds none: what it is called with is taken for inputs. Write "
            "fold_network(functools.partial(model.apply, variables), x), not fold_network(model.apply, variables, x)"
        )
    network.decisions = program.decisions
    return Partial(network, program.weights), _report(program.norms)


class _Traced(NamedTuple):
    """The program for arguments of certain shapes and types."""

    run: Callable[[Sequence[Any], Sequence[Any]], list[Any]]
    structure: Any  # of the results
    weights: tuple[jax.Array, ...] | None  # None: those of the first program


class _Network:
    """A folded network apart from its weights."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.decisions: Any = None
        self.traces: dict[Any, _Traced] = {}

    def __call__(self, weights: tuple[jax.Array, ...], *arguments: Any) -> Any:  # noqa: ANN401
        leaves, structure = jax.tree.flatten(arguments)
        key = structure, tuple(map(jax.typeof, leaves))
        if key not in self.traces:
            self.trace(arguments)
        traced = self.traces[key]
        results = traced.run(weights if traced.weights is None else traced.weights, leaves)
        return jax.tree.unflatten(traced.structure, results)

    def trace(self, arguments: tuple[Any, ...]) -> "Program":
        """Traces the function for arguments of these shapes, and folds."""
        from jaxbn._folding.program import folded  # and with it jax.extend

        closed, results = jax.make_jaxpr(self.function, return_shape=True)(*arguments)
        program = folded(closed, [None] * len(closed.in_avals))
        # Another shape may fold otherwise: then the weights are others as well.
        own = self.decisions is not None and program.decisions != self.decisions
        run = jax.jit(program.run, inline=True)
        key = jax.tree.structure(arguments), tuple(closed.in_avals)
        self.traces[key] = _Traced(run, jax.tree.structure(results), program.weights if own else None)
        return program


def _report(norms: "Sequence[Norm]") -> FoldReport:
    parts: tuple[list[FoldedNorm], list[FoldedNorm]] = [], []
    for number, norm in enumerate(norms, 1):
        name = norm.scope or f"norm {number}"
        name += f" of each of {norm.layers} scanned layers" if norm.layers > 1 else ""
        detail = "into " + ", ".join(dict.fromkeys(norm.kernels)) if norm.kernels else "it did nothing"
        if norm.kept:
            detail = f"in front of it: {norm.in_front}; behind it: {norm.behind}"
        parts[norm.kept].append(FoldedNorm(name, norm.features, detail))
    return FoldReport(*map(tuple, parts))
