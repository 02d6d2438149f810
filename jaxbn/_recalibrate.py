"""Re-estimation of running statistics from data, for weights that have changed since, such as averaged weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._batches import check_batches, joined, weighted
from jaxbn._moments import Moments
from jaxbn._paths import names
from jaxbn._recording import BY_BATCH, BY_RUNNING, empty
from jaxbn._statistics import union

Path = tuple[Any, ...]  # of a norm, in the tree of running statistics
TOLERANCE = 1e-6  # in standard deviations, or relative: two computations of one statistic differ by less


class Running(NamedTuple):
    """The running statistics of one norm."""

    mean: jax.Array
    var: jax.Array


Norms = dict[Path, Running]
# Takes the name of the record, further variables, the running statistics and a batch. Returns the records, and the
# running statistics after the run.
Run = Callable[[str, Any, Norms, Any], tuple[dict[Path, Moments], Norms]]
Progress = Callable[[Iterable[Any]], Iterable[Any]]


def recalibrate(
    apply_fn: Callable[[Any, Any], Any],
    variables: Mapping[str, Any],
    batches: Iterable[Any],
    *,
    weights: Sequence[float] | None = None,
    passes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Re-estimate the running statistics of every `jaxbn.linen.BatchNorm` in a network from data.

    For each norm, let nᵢ, μᵢ and σᵢ² be the weight, mean and variance of its input in batch i. The new statistics are

        μ = Σ nᵢ μᵢ / Σ nᵢ        σ² = Σ nᵢ (σᵢ² + (μᵢ − μ)²) / Σ nᵢ

    These are the mean and the (biased) variance of all its inputs together, independent of the division into batches.

    The input of a norm behind another one depends on the statistics that the other one normalised with. Therefore there
    are several passes: in the first pass, every norm normalises with the batch's statistics, as in training; in each
    later pass, with the statistics of the pass before, as in evaluation. After pass k, the first k norms of any chain
    are exact: their statistics are those of their inputs in evaluation.

    Args:
        apply_fn: `apply_fn(variables, batch)` runs the network *in training mode* and returns a pair whose second part
            holds the updated `batch_stats`, such as `lambda variables, batch: model.apply(variables, batch, train=True,
            mutable=["batch_stats"])`. It is compiled. Masks, dropout and the like are left to it.
        variables: the variables of the network, including `batch_stats`.
        batches: an iterable of what `apply_fn` takes as a batch, of any sizes, sharded or not. It is read once per
            pass; the batches of an iterator are kept in memory if there are several passes. A batch with one row, which
            has no variance, is joined with the batch before or after it if all arrays of a batch have the rows first.
        weights: one number per batch, at least 0: how often its entries count. By default all count once.
        passes: the number of passes. None: until no statistic changes by more than 1e-6 (of the standard deviation for
            a mean, relative for a variance); at most one more than the number of norms in the longest chain. 1 is the
            "PreciseBN" of Wu & Johnson: exact for norms without another norm in front of them, and approximate for the
            others, better with larger batches.
        progress: a function that takes the batches of a pass and iterates over them, such as `rich.progress.track` or
            `tqdm.tqdm`.

    Returns:
        The variables with new running statistics, in their previous types and containers. Everything else is unchanged,
        including the counts of updates. A norm that only evaluates (`use_running_average=True`) keeps its statistics,
        and so does a channel without weight.

    Raises:
        TypeError: `apply_fn` does not return such a pair; `batches` is a single array, or not an iterable.
        ValueError: there are no norms, no batches or no weight; `apply_fn` runs in evaluation mode; a norm does not
            record its input, such as `flax.linen.BatchNorm`; `weights` and `batches` differ in number.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxbn.linen
        >>> norm = jaxbn.linen.BatchNorm(use_running_average=False)
        >>> x = jnp.arange(10.0)[:, None]
        >>> variables = norm.init(jax.random.key(0), x)
        >>> apply_fn = lambda variables, batch: norm.apply(variables, batch, mutable=["batch_stats"])
        >>> variables = jaxbn.recalibrate(apply_fn, variables, [x[:3], x[3:]])
        >>> print(variables["batch_stats"]["mean"], variables["batch_stats"]["var"].round(3))  # of 0 to 9
        [4.5] [8.25]

    A norm that is called more than once in a forward pass gets the moments of all its inputs together. If such a norm
    is behind itself in a chain, no number of passes makes it exact; let it settle with a fixed number, such as
    `passes=5`.

    Source: Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3.

    Differs elsewhere: fvcore's `update_bn_stats` makes one pass and computes the variance as E[x²] − E[x]², which loses
    accuracy where the mean is large. PyTorch's `torch.optim.swa_utils.update_bn` gives all batches the same weight and
    averages their variances, which leaves out the variance between batches.

    """
    if "batch_stats" not in variables:
        raise ValueError(
            f"variables must hold batch_stats, the running statistics; got {', '.join(variables) or 'none'}"
        )
    paths = list(_norms(variables["batch_stats"]))

    def run(name: str, variables: Any, running: Norms, batch: Any) -> tuple[dict[Path, Moments], Norms]:  # noqa: ANN401
        stats = _plain(variables["batch_stats"])
        for path, norm in running.items():
            _at(stats, path).update(mean=norm.mean, var=norm.var, **{name: empty(norm.mean)})
        updated = _updates(apply_fn({**variables, "batch_stats": stats}, batch))
        found = {path: _at(updated, path) for path in running}
        records = {path: entries[name] for path, entries in found.items()}
        return records, {path: Running(entries["mean"], entries["var"]) for path, entries in found.items()}

    before = {path: Running(*(_at(variables["batch_stats"], path)[n] for n in Running._fields)) for path in paths}
    after = estimate(run, variables, before, batches, weights=weights, passes=passes, progress=progress)
    places = {("batch_stats", *path, name): leaf for path in paths for name, leaf in after[path]._asdict().items()}
    leaves = jax.tree.leaves_with_path(variables)
    new = [places.get(names(path), leaf) for path, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(variables), new)


def estimate(
    run: Run,
    variables: Any,  # noqa: ANN401
    before: Norms,
    batches: Iterable[Any],
    *,
    weights: Sequence[float] | None,
    passes: int | None,
    progress: Progress | None,
) -> Norms:
    """The running statistics of all norms, from passes over the batches until no statistic changes."""
    if not before:
        raise ValueError("the network must have norms to recalibrate; no running mean and var were found")
    check_batches(batches)
    limit = _passes(passes, before)
    if limit > 1 and isinstance(batches, Iterator):
        batches = list(batches)
    step = jax.jit(partial(_step, run), static_argnums=0)
    running = before
    for number in range(limit):
        name, tree = (BY_RUNNING if number else BY_BATCH), _Tournament()
        for batch, weight in joined(weighted(batches if progress is None else progress(batches), weights)):
            records, recorded, found = step(name, variables, running, batch, weight)
            if tree.is_empty and not number:
                _check_recorded(recorded, running, found)
            tree.add(records)
        if tree.is_empty:
            found = f"got none in pass {number + 1}. Pass a list, which can be read again" if number else "got none"
            raise ValueError(f"batches must hold one or more batches; {found}")
        previous, running = running, _replaced(running, tree.total())
        if passes is None and all(_settled(*pair) for pair in zip(previous.values(), running.values(), strict=True)):
            break
    return running


def _step(
    run: Run,
    name: str,
    variables: Any,  # noqa: ANN401
    running: Norms,
    batch: Any,  # noqa: ANN401
    weight: float,
) -> tuple[dict[Path, Moments], dict[Path, jax.Array], Norms]:
    """The weighted moments of a batch, the norms that recorded any, and the running statistics after the run."""
    records, found = run(name, variables, running, batch)
    recorded = {path: jnp.all(m.weight >= 0) for path, m in records.items()}
    weighted = {path: m._replace(weight=weight * jnp.maximum(m.weight, 0)) for path, m in records.items()}
    return weighted, recorded, found


class _Tournament:
    """Adds up many moments in pairs, pairs of pairs, …: rounding errors grow with the logarithm of their number."""

    def __init__(self) -> None:
        self._sums: list[tuple[int, dict[Path, Moments]]] = []  # with the number of rounds of each, in falling order

    @property
    def is_empty(self) -> bool:
        return not self._sums

    def add(self, part: dict[Path, Moments]) -> None:
        rounds = 0
        while self._sums and self._sums[-1][0] == rounds:
            part, rounds = _union(self._sums.pop()[1], part), rounds + 1
        self._sums.append((rounds, part))

    def total(self) -> dict[Path, Moments]:
        total = self._sums[-1][1]
        for _, part in reversed(self._sums[:-1]):
            total = _union(part, total)
        return total


@jax.jit
def _union(a: dict[Path, Moments], b: dict[Path, Moments]) -> dict[Path, Moments]:
    return {path: union(a[path], b[path]) for path in a}


def _replaced(old: Norms, total: dict[Path, Moments]) -> Norms:
    """The new statistics, in the old types; the old statistics where nothing has weight."""

    def statistic(m: Moments, new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(m.weight > 0, new, jnp.asarray(old).astype(new.dtype)).astype(jnp.result_type(old))

    return {
        path: Running(statistic(m, m.mean, old[path].mean), statistic(m, m.var, old[path].var))
        for path, m in total.items()
    }


def _settled(old: Running, new: Running) -> bool:
    gaps = jnp.abs(new.mean - old.mean) <= TOLERANCE * jnp.sqrt(new.var)
    return bool(jnp.all(gaps & (jnp.abs(new.var - old.var) <= TOLERANCE * new.var)))


def _passes(passes: int | None, norms: Norms) -> int:
    """The given number of passes, or an upper bound of the number of norms in a chain."""
    if passes is None:
        # Scanned layers are stacked along an axis that looks like a feature axis.
        return sum(norm.mean.size // max(1, min(norm.mean.shape, default=1)) for norm in norms.values())
    if isinstance(passes, bool) or not isinstance(passes, int) or passes < 1:
        raise ValueError(f"passes must be a positive integer, or None for as many as needed; got {passes!r}")
    return passes


def _check_recorded(recorded: dict[Path, jax.Array], before: Norms, after: Norms) -> None:
    """Raise unless every norm has recorded or, since it only evaluates, kept its statistics; one must have recorded."""
    silent = [path for path, has in recorded.items() if not has]
    for path in silent:
        if not all(jnp.array_equal(*pair, equal_nan=True) for pair in zip(before[path], after[path], strict=True)):
            name = "/".join(map(str, path)) or "the model itself"
            raise ValueError(
                f"{name} must record the moments of its batch, and only updated its running statistics. Replace it "
                "with jaxbn.linen.BatchNorm or jaxbn.nnx.BatchNorm"
            )
    if len(silent) == len(recorded):
        raise ValueError(
            "the network must run in training mode, and no norm recorded anything. Run its norms with "
            "use_running_average=False (an NNX model after model.train())"
        )


def _norms(tree: Any, path: Path = ()) -> Iterator[Path]:  # noqa: ANN401
    """The paths of the dictionaries that hold a mean and a var."""
    if isinstance(tree, Mapping):
        if {"mean", "var"} <= tree.keys() and not any(isinstance(tree[name], Mapping) for name in ("mean", "var")):
            yield path
        for key, child in tree.items():
            yield from _norms(child, (*path, key))


def _at(tree: Any, path: Path) -> Any:  # noqa: ANN401
    for key in path:
        tree = tree[key]
    return tree


def _plain(tree: Any) -> Any:  # noqa: ANN401
    """A copy in which mappings of any kind are dictionaries."""
    return {key: _plain(child) for key, child in tree.items()} if isinstance(tree, Mapping) else tree


def _updates(returned: Any) -> Any:  # noqa: ANN401
    """The running statistics in what `apply_fn` returned."""
    updates = returned[1] if isinstance(returned, tuple) and len(returned) == 2 else None
    if not isinstance(updates, Mapping) or "batch_stats" not in updates:
        raise TypeError(
            "apply_fn must return a pair whose second part holds the updated batch_stats, as model.apply(..., "
            f'mutable=["batch_stats"]) does; got {jax.tree.structure(returned)}'
        )
    return updates["batch_stats"]
