"""docs/studies.md, made from the results: nothing on it is written by hand."""

import json
from pathlib import Path
from typing import Any

from train.host import files
from train.studies.names import NAMES
from train.studies.run import FIGURE, RESULTS, find

COMMAND = "python -m train study"


def write(results: Path, docs: Path) -> Path:
    """Writes studies.md into a folder, and the figures into studies/ beside it; returns the page's path."""
    records = read(results)
    with files.naming(docs):
        (docs / "studies").mkdir(parents=True, exist_ok=True)
    for record in records:
        name = record["study"]
        files.write(docs / "studies" / f"{name}.png", (results / name / FIGURE).read_bytes())
    files.write(docs / "studies.md", render(records))
    return docs / "studies.md"


def read(results: Path) -> list[dict[str, Any]]:
    """The records of the studies that there are, in their order."""
    paths = [results / name / RESULTS for name in NAMES]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def render(records: list[dict[str, Any]]) -> str:
    """The page."""
    return "\n".join([INTRODUCTION, verdicts(records), *(section(record) for record in records)])


INTRODUCTION = """# What is said of batch normalization, measured

What the papers and tutorials claim, each put to the test by training with and without: several seeds, mean ± standard
deviation, and a verdict that is computed from the numbers. Made by

```bash
python -m train study all --docs docs                  # on the digits that come with scikit-learn
python -m train study all --docs docs --data-dir data  # on MNIST: a folder with its four IDX files
python -m train study small-batch                      # one of them
python -m train study init-scale --full                # the source's own sizes, or many more seeds
```

In every figure blue is with the norm and vermilion without, lines and bars are means over the seeds, and bands and
whiskers one standard deviation. Two means "differ" where they are further apart than twice the standard error of
their difference.

**How far to trust this.** Small networks, few seeds, short training; and the verdicts explore, they do not confirm.
Four studies were changed after a first look at results on the same data: learning-rate (with an un-normed hidden layer
it was not reproduced; that variant is still shown), smoothness (a second rate, which showed the opposite, was added),
regularization (a comparison that ignored the noise was corrected, to the claim's disadvantage) and vanishing (another
measure, the same verdict). ghost-batch takes the best of three sizes, without a correction for the choice.
"""


def verdicts(records: list[dict[str, Any]]) -> str:
    """The table at the top."""
    lines = ["| claim | verdict | finding | seeds | seconds |", "| :--- | :--- | :--- | ---: | ---: |"]
    for record in records:
        name = record["study"]
        lines.append(
            f"| [{find(name).title}](#{name}) | **{record['verdict']}** | {record['headline']} | {record['seeds']} | "
            f"{record['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def section(record: dict[str, Any]) -> str:
    """One study."""
    name, machine = record["study"], record["machine"]
    study = find(name)
    full = " --full" if record["form"] == "full" else ""
    header, rows = record["table"]["header"], record["table"]["rows"]
    lines = [f"| {' | '.join(row)} |" for row in (header, [":---", *["---:"] * (len(header) - 1)], *rows)]
    return "\n".join(
        [
            f"## {name}",
            "",
            f"**{study.title}: {record['verdict']}.** {record['summary']}",
            "",
            f"![{record['headline']}](studies/{name}.png)",
            "",
            f"*Claim.* {study.claim} ({study.source}.)",
            "",
            f"*Procedure.* {record['procedure']}",
            "",
            *lines,
            "",
            f"`{COMMAND} {name}{full}`, on {record['data']}, {record['seeds']} seeds (n = {record['seeds']} in every "
            f"cell), {record['seconds']:.0f} s on {machine['cores']} cores of {machine['device']}, jax "
            f"{machine['jax']}.",
            "",
        ]
    )
