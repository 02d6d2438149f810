"""Every goal with its measured figure: met or not.

    python -m benchmarks.summary [--folder .bench] [--markdown]

Reads the results that the benchmarks saved with `--json FOLDER/NAME.json`; the goals are in goals.py. "met so far"
means that the goal is met by an incomplete measurement, such as a run with --quick; such figures are marked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import harness
from benchmarks.goals import Goal, Runs, judge
from benchmarks.saved import load_folder


@dataclass(frozen=True)
class Options:
    """Every goal with its figure beside it."""

    folder: Path = Path(".bench")
    """Where the benchmarks' JSON files are."""
    markdown: bool = False
    """Print the table for pasting into the documentation."""


def facts(runs: Runs) -> dict[str, str]:
    """The machine of each measurement; benchmarks of one device are grouped."""
    places: dict[str, list[str]] = {}
    for name, run in runs.items():
        place = f"{run.environment['device']}, {run.environment['processor']}"
        busy = ", busy" if "busy" in run.environment["other work"] else ""
        places.setdefault(place, []).append(f"{name}{busy}")
    return {", ".join(names): place for place, names in places.items()}


def row(goal: Goal) -> Sequence[str]:
    """A row of the table."""
    figure = f"{goal.figure} (--quick)" if goal.quick else goal.figure
    return goal.question, goal.goal, figure or "–", "–" if goal.verdict == "no goal" else goal.verdict


def main(options: Options) -> None:
    """Read, judge, print."""
    runs = load_folder(options.folder)
    goals = judge(runs)
    harness.show_facts(facts(runs))
    columns = ("question", "goal", "measured", "verdict")
    harness.show_table("The goals", columns, [row(goal) for goal in goals], options.markdown)
    count = {
        verdict: sum(goal.verdict == verdict for goal in goals)
        for verdict in ("met", "met so far", "not met", "not measured")
    }
    print(", ".join(f"{number} {verdict}" for verdict, number in count.items()))


if __name__ == "__main__":
    main(tyro.cli(Options))
