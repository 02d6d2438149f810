r"""`python -m train export RUN`: the network of a run as one file, which runs without this code.

    content = pathlib.Path("network.jaxbn").read_bytes()
    program = jax.export.deserialize(bytearray(content.split(b"\n", 2)[2]))
    logits = program.call(images)  # (N, 28, 28, 1) uint8

is enough; `train.inference.artifact` also verifies the file.
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
    """Restore the network, fold its norms, check that it still computes the same, and write it.

    Raises:
        UsageError: the run does not exist or has no intact checkpoint of this kind, or another file is in the way.
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
    """Return the network with its norms folded as far as possible, and a remark about them."""
    original = unfolded(run.model, run.state.variables)
    if original.norms == "none":
        return original, "none in this network"
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
    """Serialize the network by `jax.export`: inputs (N, …) as in the dataset, for any N, to logits (N, classes)."""
    (count,) = jax_export.symbolic_shape("n")
    inputs = jax.ShapeDtypeStruct((count, *description.input_shape), description.input_dtype)
    function = jax.jit(network.function)
    # Without source locations, which would contain paths of this machine.
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
