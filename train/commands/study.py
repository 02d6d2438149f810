"""`python -m train study`: run studies."""

import json

from train.commands.options import StudyOptions
from train.host.console import Console
from train.studies import page, run
from train.studies.names import NAMES
from train.studies.terminal import Monitor, show


def study(options: StudyOptions) -> None:
    """Run studies, and print their tables and verdicts.

    Raises:
        UsageError: the data are not available.

    """
    console, data = Console(highlight=False), run.load_data(options.data_dir)
    names = NAMES if options.name == "all" else (options.name,)
    for i, name in enumerate(names, 1):
        found, folder = run.find(name), options.output / run.called(name, full=options.full)
        number = f" ({i} of {len(names)})" if len(names) > 1 else ""
        networks = found.networks(run.settings_of(found, full=options.full))
        with Monitor(console, f"{name}{number}, on {data.name}", networks) as monitor:
            finding = run.run(found, data, folder, full=options.full, tell=monitor.advance)
        record = json.loads((folder / run.RESULTS).read_text(encoding="utf-8"))
        show(console, name, finding, record["seconds"], folder)
    if options.docs is not None:
        console.print(f"written: {page.write(options.output, options.docs)}")
