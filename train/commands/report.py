"""`python -m train report RUN`: the pictures and the page of a finished run."""

import dataclasses

from train.commands.run_options import RunAndDataOptions


@dataclasses.dataclass(frozen=True)
class Report(RunAndDataOptions):
    """Writes pictures and report.html, one page with everything about a run, to the run's folder."""


def report(options: Report) -> None:
    """Restores the network, and writes confusion.png, mistakes.png and report.html.

    Raises:
        UsageError: there is no such run, it has no sound checkpoint of this kind, or its data cannot be had.
        OSError: a file cannot be written.

    """
    from train.report.page import write_report
    from train.runs import restored

    run = restored.restore(options.run, options.runs_dir, best=options.checkpoint == "best")
    print(write_report(run, restored.load_data(run, options.data_dir)))
