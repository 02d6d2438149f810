"""`python -m train study`: the options, and what is printed."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from train.studies.names import NAMES, StudyName


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """Puts claims about batch normalization to the test: with norm and without, over several seeds."""

    name: Annotated[StudyName, tyro.conf.Positional]
    """Which claim, or all of them."""
    full: bool = False
    """The sources' own sizes, or many more seeds: hours on a CPU. The quick form takes about a minute a study."""
    data_dir: Path | None = None
    """Folder with the four MNIST files in IDX form; without it, scikit-learn's digits."""
    output: Path = Path("runs/studies")
    """Folder that gets a folder a study, with results.json and figure.png; what is there of the same study is
    replaced."""
    docs: Path | None = None
    """Write the page studies.md, and its figures, into this folder, from all results in --output."""


def run_studies(options: StudyOptions) -> None:
    """Runs studies, and prints their tables and verdicts.

    Raises:
        UsageError: the data cannot be had.

    """
    # Slow to import, and not needed for --help.
    from train.host.console import Console
    from train.host.errors import UsageError
    from train.studies import page, run
    from train.studies.terminal import Monitor, show

    console = Console(highlight=False)
    try:
        data = run.load_data(options.data_dir)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(error) from error
    names = NAMES if options.name == "all" else (options.name,)
    for i, name in enumerate(names, 1):
        study = run.find(name)
        number = f" ({i} of {len(names)})" if len(names) > 1 else ""
        networks = study.networks(run.settings_of(study, full=options.full))
        with Monitor(console, f"{name}{number}, on {data.name}", networks) as monitor:
            finding = run.run(study, data, options.output / name, full=options.full, tell=monitor.advance)
        record = json.loads((options.output / name / run.RESULTS).read_text(encoding="utf-8"))
        show(console, name, finding, record["seconds"], options.output / name)
    if options.docs is not None:
        console.print(f"written: {page.write(options.output, options.docs)}")
