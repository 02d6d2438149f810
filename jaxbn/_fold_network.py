"""Folding of all norms of a whole network."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.tree_util import Partial

from jaxbn._dtypes import described

if TYPE_CHECKING:
    from jaxbn._folding.program import Program
    from jaxbn._folding.terms import Norm


class FoldedNorm(NamedTuple):
    """One norm of a network, and where it was folded or why it was kept.

    Attributes:
        name: its place in the network, as named by Linen or `jax.named_scope`; without a name, its number.
        features: the sizes of its feature axes.
        detail: the kernels that it was folded into; for a kept norm, the operations in front of it and behind it that
            prevent folding.

    Example:
        >>> import jaxbn
        >>> jaxbn.FoldedNorm("norm 1", (64,), "into a convolution").features
        (64,)

    """

    name: str
    features: tuple[int, ...]
    detail: str


class FoldReport(NamedTuple):
    """The norms of a network that were folded and that were kept; `print` shows one line per norm.

    Attributes:
        folded: the norms that were folded, in the order of the network.
        kept: the norms that remain, exactly as they were traced.

    Example:
        >>> import jaxbn
        >>> print(jaxbn.FoldReport((jaxbn.FoldedNorm("norm 1", (64,), "into a convolution"),), ()))
        1 of 1 norms folded
        folded  norm 1: into a convolution

    """

    folded: tuple[FoldedNorm, ...]
    kept: tuple[FoldedNorm, ...]

    def __str__(self) -> str:
        """One line per norm."""
        lines = [f"{len(self.folded)} of {len(self.folded) + len(self.kept)} norms folded"]
        lines += [f"folded  {norm.name}: {norm.detail}" for norm in self.folded]
        lines += [f"kept    {norm.name}: {norm.detail}" for norm in self.kept]
        return "\n".join(lines)


def fold_network(function: Callable[..., Any], *arguments: Any) -> tuple[Partial, FoldReport]:  # noqa: ANN401
    """Fold every norm of a whole network into the convolution or dense layer in front of it or behind it.

    A norm in evaluation multiplies each channel by one constant and adds another; a kernel next to it can do the same:

        γ · (K ∗ x + b − μ) / √(σ² + ε) + β = K' ∗ x + b'        as in `jaxbn.fold`
        K ∗ (γ · (x − μ) / √(σ² + ε) + β) + b = K' ∗ x + b'      as in `jaxbn.fold_into_next`

    The function is traced and its operations are analysed, so it may be written in plain JAX, Linen, NNX, Haiku or
    Equinox, with the norms of jaxbn, of Flax or of the user. **The arrays that the function holds are weights; the
    arrays that it is called with are inputs.** Weights, and everything computed from them alone, are evaluated here;
    inputs remain arguments.

        folded, report = jaxbn.fold_network(functools.partial(model.apply, variables, train=False), images)  # Linen
        folded, report = jaxbn.fold_network(model, images)                      # an NNX model, after model.eval()

    Between norm and kernel there may be reshapes, transpositions, slices, type conversions, means and sums. In front of
    the norm there may also be concatenations and sums of the results of several kernels, and max poolings (if γ is not
    negative, or if the pooling is given as `batch_norm(..., max_pool=...)`). Layers in `jax.lax.scan` and branches of
    `jax.lax.cond` are folded as well. A norm is kept if it has an activation on both sides, if its input is read
    elsewhere, if the convolution behind it is padded, or if it is inside a `while_loop` or a `shard_map`.

    Args:
        function: the network in evaluation, whose norms use running statistics. It returns arrays or a pytree of them.
        *arguments: an example of each argument: arrays, `jax.ShapeDtypeStruct`, or pytrees of them. Only their shapes
            and types matter. The folded function also takes other shapes, if `function` does.

    Returns:
        `(folded, report)`. `folded` takes the arguments of `function` and returns the same results, up to rounding, in
        the same types. It is traced again for arguments of other shapes, and works under `jax.jit`, `jax.vmap`,
        `jax.grad` (with respect to its inputs) and `jax.export`, also with a symbolic batch. It is a
        `jax.tree_util.Partial` whose leaves are the weights: passed to a jitted function as an argument, the weights
        are not compiled into the program. It also keeps a reference to `function`. `report` lists every norm.

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

    Source: Jacob et al. 2018, equation 14, applied to a traced program.

    Beware: as in `jaxbn.fold`, rounding errors grow with `|μ|/σ` of a norm's input, where that ratio is far above 1.
    Compare the results on inputs of your own. The weights are gathered on one device. Keep the original network for
    further training.

    Differs elsewhere: PyTorch's `torch.fx.experimental.optimization.fuse` folds a norm only into a convolution directly
    in front of it.

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
            "function must hold its weights, and holds none: the arrays that it is called with count as inputs. Write "
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
    """A folded network without its weights."""

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
        """Trace the function for arguments of these shapes, and fold its norms."""
        from jaxbn._folding.program import folded  # imports jax.extend, which few users need

        closed, results = jax.make_jaxpr(self.function, return_shape=True)(*arguments)
        program = folded(closed, [None] * len(closed.in_avals))
        # Another shape may fold differently; then its weights differ as well.
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
