"""Networks for classification: that of a run, or an exported one."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export, lax
from jax.tree_util import Partial
from scipy.special import softmax

from train.inference import artifact
from train.inference.artifact import ArtifactError, Description, Norms
from train.network.models import CNN, MLP
from train.runs import results
from train.runs.restored import Restored
from train.training.step import prepare

BATCH = 250
LONGEST_REASON = 300  # characters of an error of JAX
PLATFORMS = ("cpu", "cuda", "tpu")  # of exported networks


class Network(NamedTuple):
    """A network in evaluation mode."""

    function: Partial  # from inputs as in the dataset to logits; contains the variables
    norms: Norms


class Classifier(NamedTuple):
    """A function from inputs (N, …) as in the dataset to logits (N, classes)."""

    name: str
    description: Description
    function: Partial  # contains the variables

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return float32 logits of any number of inputs, computed in batches."""
        parts = [np.asarray(_call(self.function, inputs[i : i + BATCH])) for i in range(0, len(inputs), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.description.class_names)), np.float32)

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """Return the probability of each class for each input, in float64."""
        return softmax(self.logits(inputs).astype(np.float64), axis=-1)


@jax.jit
def _call(function: Partial, inputs: np.ndarray) -> jax.Array:
    """Call a function; its variables are inputs of the compiled program, which serves all networks of the same form."""
    return function(inputs)


def forward(model: CNN | MLP, variables: dict[str, Any]) -> Partial:
    """Return the network as a function of its inputs alone, exact on any platform.

    Products use full float32, where GPU and TPU would round the factors, and convolutions are those of `lax`.
    """
    model = model.clone(convolution=lax.conv_general_dilated) if isinstance(model, CNN) else model
    return Partial(partial(_logits, model), variables)


def _logits(model: CNN | MLP, variables: dict[str, Any], inputs: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("float32"):
        output = model.apply(variables, prepare(inputs), train=False)
    return jax.numpy.asarray(output).astype(jax.numpy.float32)


def describe(run: Restored, network: Network) -> Description:
    """Describe a network of a run."""
    data = run.data
    return Description(
        dataset=data.name,
        class_names=data.class_names,
        input_shape=data.input_shape,
        input_dtype=data.input_dtype,
        preprocessing=artifact.describe_preprocessing(data.input_shape, data.input_dtype),
        norms=network.norms,
        step=int(run.state.step),
        test_accuracy=measured_accuracy(run),
        jax_version=jax.__version__,
        platforms=PLATFORMS,
    )


def measured_accuracy(run: Restored) -> float | None:
    """The test accuracy at the checkpoint's step; None for a checkpoint within an epoch."""
    step = int(run.state.step)
    return next((record["test_accuracy"] for record in results.measured(run.folder) if record["step"] == step), None)


def unfolded(model: CNN | MLP, variables: dict[str, Any]) -> Network:
    """Return the network as it was trained, with its running statistics."""
    return Network(forward(model, variables), "none" if model.layers.norm is None else "evaluation mode")


def of_run(run: Restored) -> Classifier:
    """Return the network of a run, with its norms."""
    return classifier_of(run, unfolded(run.model, run.state.variables))


def classifier_of(run: Restored, network: Network) -> Classifier:
    """Return another form of the network of a run."""
    return Classifier(str(run.folder), describe(run, network), network.function)


def of_file(path: Path) -> Classifier:
    """Load an exported network.

    Raises:
        ArtifactError: it does not exist, is damaged, or cannot run on this version of JAX or this platform.

    """
    (description, program), platform = artifact.read(path), export.default_export_platform()
    if platform not in description.platforms:
        raise ArtifactError(
            f"{path} runs on {', '.join(description.platforms)}, and JAX uses {platform} here: set JAX_PLATFORMS=cpu"
        )
    one = jax.ShapeDtypeStruct((1, *description.input_shape), description.input_dtype)
    try:
        function = export.deserialize(bytearray(program)).call
        output = jax.jit(function).lower(one).out_info
    except Exception as error:  # any: the bytes have been verified
        reason = next(iter(str(error).splitlines()), "")[:LONGEST_REASON]
        raise ArtifactError(
            f"{path} is intact and was made by jax {description.jax_version}; jax {jax.__version__} cannot read it "
            f"({type(error).__name__}: {reason}): export the network again"
        ) from error
    if getattr(output, "shape", None) != (1, len(description.class_names)):
        raise ArtifactError(f"{path} contains a program that does not match its description: export it again")
    return Classifier(str(path), description, Partial(function))
