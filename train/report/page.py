"""report.html: everything about a finished run on one page, which loads nothing else."""

import base64
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import jinja2
import numpy as np

from train.config import options
from train.data import Dataset
from train.host import files, invocation, machine, words
from train.inference import classify
from train.network.summary import summarize
from train.report import norms
from train.report.pictures import PICTURES, Picture, write_pictures
from train.report.predictions import Predictions
from train.runs import invocations
from train.runs.operations import operations
from train.runs.restored import Restored
from train.runs.results import REPORT, measured
from train.training.step import metrics_of, prepare

TEMPLATE = "report.html.jinja"
NORM_BATCH = 250  # test examples that the norms are diagnosed on


def write_report(run: Restored, dataset: Dataset) -> Path:
    """Write a run's confusion.png, mistakes.png and report.html, which shows curves.png if it exists.

    Args:
        run: the run with its network and state.
        dataset: the dataset that the run learned from.

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
    """Return the page, with the pictures that are in the run's folder."""
    source = resources.files("train.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    surroundings = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    inputs = prepare(jnp.asarray(dataset.test_inputs[:1]))
    layers = operations(run.config.model, summarize(run.model, run.state.variables, inputs), inputs.shape[1:])
    diagnoses = norms.diagnose(run.model, run.state, jnp.asarray(dataset.test_inputs[:NORM_BATCH]))
    return surroundings.from_string(source).render(
        name=run.folder.name,
        count=words.count,
        dataset=dataset,
        about=about(run, dataset),
        invocations=invocations.read(run.folder),
        results=results(run, dataset, logits),
        pictures=pictures(run.folder),
        norms=norms.rows(diagnoses),
        norm_batch=min(NORM_BATCH, len(dataset.test_labels)),
        layers=layers,
        epochs=epochs(run.folder),
        options=listed(run),
        environment={"report made": invocation.now(), **machine.environment()},
    )


def about(run: Restored, dataset: Dataset) -> dict[str, str]:
    """The data of a run, its seed and its preset, by name."""
    examples = len(dataset.train_labels)
    held_out = round(run.config.data.validation * examples)  # as `train.training.plan.splits` divides them
    return {
        "dataset": f"{dataset.name} ({dataset.source}), {words.count(len(dataset.class_names), 'class', 'classes')}",
        "training": words.count(examples - held_out, "example"),
        "validation": words.count(held_out, "example") if held_out else "none",
        "test": words.count(len(dataset.test_labels), "example"),
        "seed": str(run.config.run.seed),
        "preset": run.config.preset,
    }


def listed(run: Restored) -> list[options.Option]:
    """Every option of a run; those that were not set are marked as usual, whatever the dataset filled in."""
    found, starts = options.listed(run.config), invocations.read(run.folder)
    if not starts:
        return found
    given = {name for start in starts for name in start.options}
    return [option._replace(usual=option.name not in given) for option in found]


def results(run: Restored, dataset: Dataset, logits: np.ndarray) -> dict[str, str]:
    """The results of a run, by name."""
    count = len(dataset.test_labels)
    metrics = jax.jit(metrics_of)(logits, dataset.test_labels, np.ones(count, bool))
    correct = int(metrics.correct)
    parameters = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(run.state.params))
    found = {
        "test accuracy": f"{correct / count:.2%}: {correct:,} of {count:,} right",
        "test loss": f"{float(metrics.loss) / count:.4f} nats per example",
    }
    records, step = measured(run.folder), int(run.state.step)
    held_out = [record for record in records if record["validation_accuracy"] is not None]
    for record in held_out:
        if record["step"] == step:
            found["validation accuracy"] = f"{record['validation_accuracy']:.2%}"
            found["validation loss"] = f"{record['validation_loss']:.4f} nats per example"
    if held_out:
        best = max(held_out, key=lambda record: record["validation_accuracy"])
        found["best validation accuracy"] = f"{best['validation_accuracy']:.2%}, after epoch {best['epoch']}"
    found |= {"steps": f"{step:,}", "parameters": f"{parameters:,}"}
    last = next(reversed(records), None)
    if last is not None and None not in (last["train_seconds"], last["images_per_second"]):
        found["time in training steps"] = f"{last['train_seconds']:.1f} s"
        found["speed in the last epoch"] = f"{last['images_per_second']:,.0f} examples/s"
    return found


def epochs(folder: Path) -> list[dict[str, str]]:
    """The records of the epochs, each by column."""
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
    """The pictures in a run's folder, each with a data URI of its content."""
    paths = [(picture, folder / picture.file) for picture in PICTURES]
    return [(picture, data_uri(path.read_bytes())) for picture, path in paths if path.exists()]


def data_uri(png: bytes) -> str:
    """Return a data URI of a PNG file.

    Example:
        >>> data_uri(b"PNG")
        'data:image/png;base64,UE5H'

    """
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
