"""Norms inside `jax.lax.scan`, such as those of scanned layers, and inside the branches of `jax.lax.cond`.

The weights of each iteration are folded separately and stacked again.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxbn._folding.graph import Constant, Operand, Operation, Value, constant
from jaxbn._folding.program import Program, folded


def fold_inside(operation: Operation) -> None:
    """Fold the norms inside a `scan` or a `cond`; other operations stay unchanged."""
    if operation.name == "scan":
        _fold_scan(operation)
    elif operation.name == "cond":
        _fold_branches(operation)


def _fold_scan(operation: Operation) -> None:
    params = operation.params
    consts, carry, stacked = _split(operation)
    if not _has_weights((*consts, *stacked)):
        return
    programs = []
    for index in range(params["length"]):
        layer = [constant(jnp.broadcast_to(o.array, o.shape)[index]) for o in stacked if isinstance(o, Constant)]
        remaining = iter(layer)
        given = [next(remaining) if isinstance(o, Constant) else None for o in stacked]
        programs.append(folded(params["jaxpr"], [*_constants(consts), *[None] * len(carry), *given], operation.scope))
    if not programs or not programs[0].norms:
        return
    alike = all(program.decisions == programs[0].decisions for program in programs)
    for norm in programs[0].norms:
        norm.layers *= len(programs)
        if not alike:
            norm.keep("layers of a scan that do not fold alike", "the same")
    operation.norms = programs[0].norms
    if not alike:
        return
    arrays = [jnp.stack(layers) for layers in zip(*(program.weights for program in programs), strict=True)]
    operation.weights = [Constant(array, array.shape) for array in arrays]
    # Constants are among the weights now; the initial state of the loop is not.
    parts = _values(consts), carry, _values(stacked)
    operation.operands = [operand for part in parts for operand in part]
    operation.inside = partial(_scan, params, programs[0], [len(part) for part in parts])


def _scan(params: dict[str, Any], program: Program, counts: Sequence[int], arrays: Sequence[Any]) -> list[Any]:
    """The loop over the folded body."""
    count, remaining, parts = counts[1], list(arrays), []
    for size in counts:
        parts.append(remaining[:size])
        remaining = remaining[size:]
    consts, carry, stacked = parts

    def body(state: list[Any], layer: tuple[Sequence[Any], Sequence[Any]]) -> tuple[list[Any], list[Any]]:
        inputs, weights = layer
        results = program.run(weights, [*consts, *state, *inputs])
        return results[:count], results[count:]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    state, results = lax.scan(body, carry, (stacked, remaining), **options)
    return [*state, *results]


def _fold_branches(operation: Operation) -> None:
    index, *given = operation.operands
    if not _has_weights(given):
        return
    programs = [folded(branch, _constants(given), operation.scope) for branch in operation.params["branches"]]
    operation.norms = [norm for program in programs for norm in program.norms]
    if operation.norms:
        operation.weights = [Constant(weight, weight.shape) for program in programs for weight in program.weights]
        operation.operands = [index, *_values(given)]
        operation.inside = partial(_switch, programs, len(operation.operands))


def _switch(programs: Sequence[Program], count: int, arrays: Sequence[Any]) -> list[Any]:
    """One of the folded branches."""
    weights, inputs, branches = list(arrays[count:]), list(arrays[1:count]), []
    for program in programs:
        own, weights = weights[: len(program.weights)], weights[len(program.weights) :]
        branches.append(partial(program.run, own))
    return lax.switch(arrays[0], branches, inputs)


def _split(operation: Operation) -> tuple[list[Operand], list[Operand], list[Operand]]:
    """The operands of a scan: those that every iteration shares, the state, and those with one entry per iteration."""
    params = operation.params
    if "num_consts" in params:
        consts, carry = params["num_consts"], params["num_carry"]
    else:  # newer than JAX 0.10
        consts, carry = (len(tuple(part)) for part in params["ft_in"].unpack()[:2])
    given = operation.operands
    return given[:consts], given[consts : consts + carry], given[consts + carry :]


def _has_weights(operands: Sequence[Operand]) -> bool:
    return any(isinstance(o, Constant) and o.shape for o in operands)


def _constants(operands: Sequence[Operand]) -> list[Constant | None]:
    return [o if isinstance(o, Constant) else None for o in operands]


def _values(operands: Sequence[Operand]) -> list[Operand]:
    return [o for o in operands if isinstance(o, Value)]
