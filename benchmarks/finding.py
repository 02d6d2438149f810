"""The judgement of a goal: a figure, and whether it meets the goal."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Verdict = Literal["met", "met so far", "not met", "not measured", "no goal"]
Records = Sequence[Mapping[str, Any]]
Finding = tuple[str, Verdict] | None  # the figure and what it means; None: it is not among the records


def verdict(is_met: bool) -> Verdict:
    """The verdict on a goal that was measured."""
    return "met" if is_met else "not met"
