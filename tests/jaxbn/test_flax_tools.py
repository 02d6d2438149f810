"""Flax's tools show the same for models with our modules as with Flax's: tables, calls, intermediates."""

from typing import Any

import flax.linen as nn
import jax
import pytest
from equivalence import assert_same, batch
from flax import nnx

import jaxbn.linen
import jaxbn.nnx

KEY = jax.random.key(0)
X = batch(shape=(8, 6))
LINEN: Any = (jaxbn.linen.BatchNorm, nn.BatchNorm)
NNX: Any = (jaxbn.nnx.BatchNorm, nnx.BatchNorm)


@pytest.fixture(autouse=True)
def strict():
    """Flax promotes types implicitly: not strict here."""


class Linen(nn.Module):
    """One norm made in `setup` and called twice, and one made in place."""

    norm: Any

    def setup(self):
        self.shared = self.norm(use_running_average=False, momentum=0.5)

    @nn.compact
    def __call__(self, x):
        x = self.shared(nn.Dense(4)(x))
        return self.norm(use_running_average=False)(self.shared(x))


class Nnx(nnx.Module):
    def __init__(self, norm: Any):
        self.linear = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
        self.norm = norm(4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(self.norm(self.linear(x)))


@pytest.mark.parametrize("repeated", [False, True], ids=["", "show_repeated"])
def test_the_summary_of_a_linen_model(repeated):
    options: Any = {"show_repeated": repeated, "console_kwargs": {"width": 150}}
    ours, flaxs = (Linen(norm).tabulate(KEY, X, **options) for norm in LINEN)
    assert ours == flaxs
    assert ours.count("BatchNorm") >= 2
    assert "batch_stats" in ours


def test_the_operations_of_a_linen_model_are_counted():
    """The operations differ from Flax's; only the rest of the table is equal."""
    options: Any = {"show_repeated": True, "compute_flops": True, "compute_vjp_flops": True}
    tables = [Linen(norm).tabulate(KEY, X, console_kwargs={"width": 250}, **options) for norm in LINEN]
    rows = [[line.count("│") for line in text.splitlines()] for text in tables]
    assert rows[0] == rows[1]
    assert all("vjp_flops" in text for text in tables)


def test_calls_that_interceptors_of_linen_see():
    def calls(norm):
        seen = []

        def note(call, args, kwargs, context):
            seen.append((context.module.path, context.method_name, len(args), sorted(kwargs)))
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            variables = Linen(norm).init(KEY, X)
            Linen(norm).apply(variables, X, mutable=["batch_stats"])
        return seen

    ours, flaxs = map(calls, LINEN)
    assert ours == flaxs


@pytest.mark.parametrize("chosen", [True, lambda module, name: isinstance(module, LINEN)], ids=["all", "norms"])
def test_intermediates_of_a_linen_model(chosen):
    ours, flaxs = (
        Linen(norm).apply(
            Linen(norm).init(KEY, X), X, mutable=["batch_stats", "intermediates"], capture_intermediates=chosen
        )
        for norm in LINEN
    )
    assert_same(ours, flaxs)
    assert "intermediates" in ours[1]


def test_the_summary_of_an_nnx_model():
    ours, flaxs = (nnx.tabulate(Nnx(norm), X, console_kwargs={"width": 150}) for norm in NNX)
    assert ours == flaxs
    assert "BatchStat" in ours


def test_the_operations_of_an_nnx_model_are_counted():
    options: Any = {"compute_flops": True, "compute_vjp_flops": True, "console_kwargs": {"width": 250}}
    tables = [nnx.tabulate(Nnx(norm), X, **options) for norm in NNX]
    rows = [[line.count("│") for line in text.splitlines()] for text in tables]
    assert rows[0] == rows[1]
    assert all("vjp_flops" in text for text in tables)


def test_the_summary_of_an_nnx_model_with_one_example():
    """A dense model then has one value per channel: a warning, and Flax's table."""
    with pytest.warns(UserWarning, match="more than one value per channel"):
        ours = nnx.tabulate(Nnx(jaxbn.nnx.BatchNorm), X[:1], console_kwargs={"width": 150})
    assert ours == nnx.tabulate(Nnx(nnx.BatchNorm), X[:1], console_kwargs={"width": 150})


def test_intermediates_of_an_nnx_model():
    """Of classes of its own: `nnx.tabulate` leaves copies of inherited methods in those that it sees."""

    def captured(norm):
        own = {name: value for name, value in vars(norm).items() if "BatchNorm." in getattr(value, "__qualname__", "")}
        norm = type("BatchNorm", (norm,), own)

        class Twice(nnx.Module):
            def __init__(self):
                self.norm = norm(6, rngs=nnx.Rngs(0))

            def __call__(self, x):
                return self.norm(2 * self.norm(x))

        y, intermediates = nnx.capture(Twice(), nnx.Intermediate, method_outputs=nnx.Intermediate)(X)
        return y, nnx.to_pure_dict(intermediates)

    ours, flaxs = map(captured, NNX)
    assert_same(ours, flaxs)
    assert len(ours[1]["norm"]["__call__"]) == 2
