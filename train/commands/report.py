"""`python -m train report RUN`: the pictures and the page of a finished run."""

from train.commands.options import Report
from train.report.page import write_report
from train.runs import restored


def report(options: Report) -> None:
    """Restores the network, and writes confusion.png, mistakes.png and report.html.

    Raises:
        UsageError: there is no such run, it has no sound checkpoint of this kind, or its data cannot be had.
        OSError: a file cannot be written.

    """
    run = restored.restore(options.run, options.runs_dir, best=options.checkpoint == "best")
    print(write_report(run, restored.load_data(run, options.data_dir)))
