r"""`python -m train export RUN`: the network of a run as one file, which needs none of this code to be run.

    content = pathlib.Path("network.jaxbn").read_bytes()
    program = jax.export.deserialize(bytearray(content.split(b"\n", 2)[2]))
    logits = program.call(images)  # (N, 28, 28, 1) uint8

does without; `train.inference.artifact` verifies it as well.
"""

import jax
import numpy as np
from jax import export as jax_export

import jaxbn
from train.commands.options import Export
from train.inference import artifact
from train.inference.artifact import Description
from train.inference.classify import Network, classifier_of, describe, unfolded
from train.runs import restored, results
from train.runs.restored import Restored

PROBES = 16
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}  # of the largest logit


def export(options: Export) -> None:
    """Restores the network, folds its norms, checks that it still computes the same, and writes it.

    Raises:
        UsageError: there is no such run, it has no sound checkpoint of this kind, or the file's place is taken.
        OSError: the file cannot be written.

    """
    run = restored.restore(options.run, options.runs_dir, best=options.checkpoint == "best")
    network, remark = fold(run)
    description = describe(run, network)
    program = serialize(network, description)
    path = options.output or run.folder / results.EXPORT
    digest = artifact.write(path, artifact.Artifact(description, program))
    accuracy = description.test_accuracy
    print(f"norms: {remark}")
    print(f"test accuracy: {'not measured at this step' if accuracy is None else format(accuracy, '.2%')}")
    print(f"runs on: {', '.join(description.platforms)}, with any number of examples at once")
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 {digest}")


def fold(run: Restored) -> tuple[Network, str]:
    """The network with its norms folded as far as they can be, and a remark about them."""
    original = unfolded(run.model, run.state.variables)
    if original.norms == "none":
        return original, "the network has none"
    example = jax.ShapeDtypeStruct((1, *run.data.input_shape), run.data.input_dtype)
    function, report = jaxbn.fold_network(original.function, example)
    reasons = "; ".join(f"{norm.name.rpartition('/')[2]} ({norm.detail.replace('; ', ', ')})" for norm in report.kept)
    if not report.folded:
        return original, f"kept, with their running statistics: {reasons}"
    network = Network(function, "partly folded" if report.kept else "folded")
    difference, allowed = _difference(run, original, network), TOLERANCE[run.config.model.precision]
    if not difference <= allowed:
        return original, (
            f"kept, with their running statistics: folded, logits would differ by up to {difference:.1e} of the "
            f"largest one (allowed: {allowed:g}), as happens where a feature's mean is far larger than its deviation"
        )
    kept = f"; kept, with their running statistics: {reasons}" if report.kept else ""
    return network, f"folded into the layers next to them; logits differ by {difference:.1e} of the largest one{kept}"


def serialize(network: Network, description: Description) -> bytes:
    """The network as a program of `jax.export`: inputs (N, …) as in the dataset, for any N, to logits (N, classes)."""
    (count,) = jax_export.symbolic_shape("n")
    inputs = jax.ShapeDtypeStruct((count, *description.input_shape), description.input_dtype)
    function = jax.jit(network.function)
    # Where in the source an operation comes from is left out: paths of this machine are nobody's business.
    limit = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        return bytes(jax_export.export(function, platforms=description.platforms)(inputs).serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def _difference(run: Restored, original: Network, folded: Network) -> float:
    """The largest difference of logits on random inputs, relative to the largest logit."""
    random = np.random.default_rng(0)
    shape = (PROBES, *run.data.input_shape)
    probes = random.integers(0, 256, shape) if run.data.input_dtype == "uint8" else random.normal(size=shape)
    before, after = (
        classifier_of(run, network).logits(probes.astype(run.data.input_dtype)) for network in (original, folded)
    )
    return float(np.abs(before - after).max() / np.abs(before).max())
