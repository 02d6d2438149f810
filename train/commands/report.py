"""`python -m train report RUN`: the pictures and the report of a finished run."""

from train.commands.options import Report
from train.report.page import write_report
from train.runs import restored


def report(options: Report) -> None:
    """Restore the network, and write confusion.png, mistakes.png and report.html.

    Raises:
        UsageError: the run does not exist, has no intact checkpoint of this kind, or its data are not available.
        OSError: a file cannot be written.

    """
    run = restored.restore(options.run, options.runs_dir, best=options.checkpoint == "best")
    print(write_report(run, restored.load_data(run, options.data_dir)))
