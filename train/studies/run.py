"""Running studies: their data, their files, and the machine."""

import dataclasses
import importlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.data import Dataset, load
from train.host import files
from train.host.machine import usable_processors, versions
from train.studies import figures, sweep
from train.studies.study import Data, Finding, Numbers, Study
from train.training.plan import splits

RESULTS, FIGURE = "results.json", "figure.png"


def find(name: str) -> Study:
    """Return a study by its name; its module is imported only now."""
    return importlib.import_module(f"train.studies.{name.replace('-', '_')}").STUDY


def data_of(dataset: Dataset) -> Data:
    """A dataset on the device."""
    parts = splits(dataset, validation=0.0)
    return Data(dataset.name, parts.train, parts.test)


def load_data(data_dir: Path | None) -> Data:
    """Load MNIST from a folder, or the digits that come with scikit-learn."""
    return data_of(load("digits") if data_dir is None else load("mnist", data_dir=data_dir))


def settings_of(study: Study, *, full: bool) -> Any:  # noqa: ANN401
    """The settings of a study's quick or full form."""
    return study.full if full else study.quick


def called(name: str, *, full: bool) -> str:
    """Return the name of a study's results, which are one folder for each form, and one section of the page.

    Example:
        >>> called("vanishing", full=False), called("vanishing", full=True)
        ('vanishing', 'vanishing-full')

    """
    return f"{name}-full" if full else name


def run(
    study: Study, data: Data, folder: Path, *, full: bool = False, tell: Callable[[int], None] = lambda _: None
) -> Finding:
    """Measure, conclude, and write results.json and figure.png into a folder; `tell` counts the trained networks."""
    settings = settings_of(study, full=full)
    begin = time.perf_counter()
    with sweep.told(tell):
        numbers = study.measure(data, settings)
    seconds = time.perf_counter() - begin
    finding = study.conclude(numbers, settings)
    with files.naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / FIGURE, picture(study, numbers, settings, finding))
    record = describe(study, data, settings, numbers, finding, seconds, full=full)
    files.write(folder / RESULTS, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
    return finding


def picture(study: Study, numbers: Numbers, settings: Any, finding: Finding) -> bytes:  # noqa: ANN401
    """The study's figure as PNG."""
    figure = figures.new_figure(study.height, finding.headline)
    study.draw(numbers, settings, figure)
    return figures.png(figure)


def describe(
    study: Study,
    data: Data,
    settings: Any,  # noqa: ANN401
    numbers: Numbers,
    finding: Finding,
    seconds: float,
    *,
    full: bool,
) -> dict[str, Any]:
    """Return the content of results.json: the finding, the method, the data, the machine and all numbers."""
    return {
        "study": study.name,
        "form": "full" if full else "quick",
        "claim": study.claim,
        **finding._asdict() | {"table": finding.table._asdict()},
        "procedure": filled(study.procedure, settings),
        "criterion": filled(study.criterion, settings),
        "data": data.name,
        "seeds": settings.seeds,
        "first_seed": settings.first_seed,
        "settings": dataclasses.asdict(settings),
        "seconds": round(seconds, 1),
        "machine": machine(),
        "numbers": {name: plain(values) for name, values in numbers.items()},
    }


def filled(text: str, settings: Any) -> str:  # noqa: ANN401
    """A text of a study with the values of its settings."""
    return text.format(**{name: words(value) for name, value in dataclasses.asdict(settings).items()})


def machine() -> dict[str, Any]:
    """The device and the software versions."""
    return {"device": jax.devices()[0].device_kind, "cores": usable_processors(), **versions("jax")}


def words(value: Any) -> str:  # noqa: ANN401
    """Format a setting for a sentence.

    Example:
        >>> words((100, 100)), words(0.001), words(50_000)
        ('100, 100', '0.001', '50,000')

    """
    if isinstance(value, tuple):
        return ", ".join(words(v) for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def plain(values: np.ndarray) -> Any:  # noqa: ANN401
    """Convert an array to JSON values: five digits, and null for NaN and infinity.

    Example:
        >>> plain(np.array([[1.0, np.nan], [np.inf, 2.0]]))
        [[1.0, None], [None, 2.0]]

    """
    if values.ndim:
        return [plain(row) for row in values]
    value = float(values)
    return float(f"{value:.5g}") if math.isfinite(value) else None
