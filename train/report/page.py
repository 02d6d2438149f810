"""report.html: everything about a finished run on one page that needs nothing else, not even a network."""

import base64
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import jinja2
import numpy as np

from train.config import options
from train.data import Dataset
from train.host import files, machine, words
from train.inference import classify
from train.network.summary import summarize
from train.report import norms
from train.report.pictures import PICTURES, Picture, write_pictures
from train.report.predictions import Predictions
from train.runs.restored import Restored
from train.runs.results import REPORT, measured
from train.training.step import metrics_of, prepare

TEMPLATE = "report.html.jinja"
NORM_BATCH = 250  # test examples that the norms are looked at with


def write_report(run: Restored, dataset: Dataset) -> Path:
    """Writes a run's confusion.png, mistakes.png and report.html; curves.png is shown if it is there.

    Args:
        run: its network, as `train.runs.restored` gives it, or made of what training has at its end.
        dataset: what it learned from.

    Returns:
        The page's path.

    Raises:
        OSError: a file cannot be written.

    """
    logits = classify.of_run(run).logits(dataset.test_inputs)
    predictions = Predictions(dataset.name, dataset.class_names, dataset.test_inputs, dataset.test_labels, logits)
    write_pictures(run.folder, predictions)
    path = run.folder / REPORT
    files.write(path, render(run, dataset, logits))
    return path


def render(run: Restored, dataset: Dataset, logits: np.ndarray) -> str:
    """The page, with the pictures that the run's folder has."""
    source = resources.files("train.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    surroundings = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    diagnoses = norms.diagnose(run.model, run.state, jnp.asarray(dataset.test_inputs[:NORM_BATCH]))
    return surroundings.from_string(source).render(
        name=run.folder.name,
        count=words.count,
        dataset=dataset,
        results=results(run, dataset, logits),
        pictures=pictures(run.folder),
        norms=norms.rows(diagnoses),
        norm_batch=min(NORM_BATCH, len(dataset.test_labels)),
        layers=summarize(run.model, run.state.variables, prepare(jnp.asarray(dataset.test_inputs[:1]))),
        epochs=epochs(run.folder),
        options=options.listed(run.config),
        environment=machine.environment(),
    )


def results(run: Restored, dataset: Dataset, logits: np.ndarray) -> dict[str, str]:
    """What came of the run, by name."""
    count = len(dataset.test_labels)
    metrics = metrics_of(jnp.asarray(logits), jnp.asarray(dataset.test_labels), jnp.ones(count, bool))
    correct = int(metrics.correct)
    parameters = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(run.state.params))
    found = {
        "test accuracy": f"{correct / count:.2%}: {correct:,} of {count:,} right",
        "test loss": f"{float(metrics.loss) / count:.4f} nats an example",
        "steps": f"{int(run.state.step):,}",
        "parameters": f"{parameters:,}",
    }
    last = next(reversed(measured(run.folder)), None)
    if last is not None and None not in (last["train_seconds"], last["images_per_second"]):
        found["time in training steps"] = f"{last['train_seconds']:.1f} s"
        found["speed in the last epoch"] = f"{last['images_per_second']:,.0f} examples/s"
    return found


def epochs(folder: Path) -> list[dict[str, str]]:
    """The record of each epoch, by column."""
    rows = []
    for record in measured(folder):
        row = {"epoch": f"{record['epoch']}"}
        for part in ("train", "validation", "test"):
            if None not in (record[f"{part}_loss"], record[f"{part}_accuracy"]):
                row[f"{part} loss"] = f"{record[f'{part}_loss']:.4f}"
                row[f"{part} accuracy"] = f"{record[f'{part}_accuracy']:.2%}"
        rows.append(row)
    return rows


def pictures(folder: Path) -> list[tuple[Picture, str]]:
    """The pictures that the folder has, each with the address that holds it."""
    paths = [(picture, folder / picture.file) for picture in PICTURES]
    return [(picture, data_uri(path.read_bytes())) for picture, path in paths if path.exists()]


def data_uri(png: bytes) -> str:
    """A picture as an address that holds it.

    Example:
        >>> data_uri(b"PNG")
        'data:image/png;base64,UE5H'

    """
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
