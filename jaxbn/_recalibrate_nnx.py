"""`jaxbn.recalibrate` for NNX, with a module in place of an apply function and variables."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from flax import nnx

from jaxbn._moments import Moments
from jaxbn._recalibrate import Norms, Path, Progress, Running, estimate
from jaxbn._recording import empty

Model = TypeVar("Model", bound=nnx.Module)


def _call(model: Any, batch: Any) -> Any:  # noqa: ANN401
    return model(batch)


def recalibrate(
    model: Model,
    batches: Iterable[Any],
    *,
    call: Callable[[Model, Any], Any] = _call,
    weights: Sequence[float] | None = None,
    passes: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Re-estimate the running statistics of every `jaxbn.nnx.BatchNorm` in a model from data, in place.

    The formulas and the passes are those of `jaxbn.recalibrate`. Only the running statistics of the model change; its
    random number generators, for example, do not.

    Args:
        model: an NNX module in training mode (`model.train()`).
        batches: an iterable of what `call` takes as a batch.
        call: `call(model, batch)` runs the network; by default `model(batch)`.
        weights: one number per batch, at least 0: how often its entries count.
        passes: the number of passes; None for as many as needed.
        progress: a function that takes the batches of a pass and iterates over them.

    Raises:
        TypeError: `batches` is a single array, or not an iterable.
        ValueError: there are no norms, no batches or no weight; the model is in evaluation mode; a norm does not record
            its input, such as `flax.nnx.BatchNorm`.

    Example:
        >>> import jax.numpy as jnp, jaxbn.nnx
        >>> from flax import nnx
        >>> norm = jaxbn.nnx.BatchNorm(1, rngs=nnx.Rngs(0))
        >>> x = jnp.arange(10.0)[:, None]
        >>> jaxbn.nnx.recalibrate(norm, [x[:3], x[3:]])
        >>> print(norm.mean[...], norm.var[...].round(3))  # of 0 to 9
        [4.5] [8.25]

    Source: Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3.

    """
    graph, variables = nnx.split(model)

    def run(name: str, variables: Any, running: Norms, batch: Any) -> tuple[dict[Path, Moments], Norms]:  # noqa: ANN401
        copy = nnx.merge(graph, variables)
        norms = dict(_norms(copy))
        for path, norm in norms.items():
            norm.mean.set_value(running[path].mean)
            norm.var.set_value(running[path].var)
            setattr(norm, name, nnx.BatchStat(empty(running[path].mean)))
        call(copy, batch)
        records = {path: getattr(norm, name).get_value() for path, norm in norms.items()}
        return records, _running(norms)

    norms = dict(_norms(model))
    after = estimate(run, variables, _running(norms), batches, weights=weights, passes=passes, progress=progress)
    for path, norm in norms.items():
        norm.mean.set_value(after[path].mean)
        norm.var.set_value(after[path].var)


def _norms(model: nnx.Module) -> Iterator[tuple[Path, Any]]:
    """The modules that keep a running mean and a running variance."""
    for path, module in nnx.iter_modules(model):
        if all(isinstance(getattr(module, name, None), nnx.BatchStat) for name in Running._fields):
            yield tuple(path), module


def _running(norms: dict[Path, Any]) -> Norms:
    return {path: Running(norm.mean.get_value(), norm.var.get_value()) for path, norm in norms.items()}
