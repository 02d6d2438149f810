"""Norms inside `jax.lax.scan`, as of layers that are scanned: each iteration's weights are folded on their own."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxbn._folding.graph import Constant, Operation, constant
from jaxbn._folding.program import Program, folded


def fold_body(operation: Operation) -> None:
    """Gives a scan another body, where all iterations fold alike; else it stays as it is."""
    params = operation.params
    consts, carry = params["num_consts"], params["num_consts"] + params["num_carry"]
    fixed = [o if isinstance(o, Constant) else None for o in operation.operands[:consts]]
    stacked = [o if isinstance(o, Constant) else None for o in operation.operands[carry:]]
    if not any(operand and operand.shape for operand in (*fixed, *stacked)):
        return
    programs = []
    for index in range(params["length"]):
        layer = [None if o is None else constant(jnp.broadcast_to(o.array, o.shape)[index]) for o in stacked]
        programs.append(folded(params["jaxpr"], [*fixed, *[None] * params["num_carry"], *layer]))
        if not programs[0].norms or programs[-1].decisions != programs[0].decisions:
            return
    if programs:
        operation.norms = programs[0].norms
        arrays = [jnp.stack(layers) for layers in zip(*(program.weights for program in programs), strict=True)]
        operation.weights = [Constant(array, array.shape) for array in arrays]
        literal = [isinstance(operand, Constant) and operand.literal for operand in operation.operands]
        operation.loop = partial(_scan, operation, programs[0], literal)


def _scan(operation: Operation, program: Program, literal: Sequence[bool], arrays: Sequence[Any]) -> list[Any]:
    """The loop over the folded body."""
    params = operation.params
    consts, carry = params["num_consts"], params["num_consts"] + params["num_carry"]
    given = iter(arrays)
    operands = [o.array if skip else next(given) for o, skip in zip(operation.operands, literal, strict=True)]
    weights = tuple(given)
    is_input = [not isinstance(operand, Constant) for operand in operation.operands]
    is_input[consts:carry] = [True] * params["num_carry"]

    def body(state: list[Any], layer: tuple[list[Any], tuple[Any, ...]]) -> tuple[list[Any], list[Any]]:
        inputs = [*operands[:consts], *state, *layer[0]]
        results = program.run(layer[1], [o for o, given in zip(inputs, is_input, strict=True) if given])
        return results[: params["num_carry"]], results[params["num_carry"] :]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    state, stacked = lax.scan(body, operands[consts:carry], (operands[carry:], weights), **options)
    return [*state, *stacked]
