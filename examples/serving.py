"""Serving: fold every norm of a network into its kernels, export the program, and run it in a fresh process.

    pip install flatbuffers  # jax.export needs it
    python examples/serving.py

The exported file holds the weights and the program for any batch size. To load it, one needs JAX, but neither this
library nor Flax nor the code of the model.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import jaxbn
from jaxbn.linen import BatchNorm

SERVER = """
import pathlib
import sys

import numpy as np
from jax import export

program, images, logits = sys.argv[1:]
network = export.deserialize(bytearray(pathlib.Path(program).read_bytes()))
np.save(logits, network.call(np.load(images)))
assert not {"jaxbn", "flax"} & set(sys.modules)
"""


class Network(nn.Module):
    """Two convolutions and a dense layer, each with a norm, and the logits."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """The logits of images."""
        norm = partial(BatchNorm, use_running_average=not train, activation="relu")
        for width in (8, 16):
            x = norm()(nn.Conv(width, (3, 3), strides=2)(x))
        x = norm()(nn.Dense(16)(x.reshape(-1, x.shape[1] * x.shape[2] * x.shape[3])))
        return nn.Dense(10)(x)


def main() -> None:
    """Fold, export, load in another process, and compare."""
    model, images = Network(), 2 + jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables: Any = jax.jit(lambda: model.init(jax.random.key(1), images, train=False))()
    _, statistics = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(variables, images)
    network = partial(model.apply, variables | statistics, train=False)

    folded, report = jaxbn.fold_network(network, images)
    print(report)
    assert len(report.folded) == 3
    assert not report.kept

    (batch,) = export.symbolic_shape("batch")
    program = export.export(jax.jit(folded))(jax.ShapeDtypeStruct((batch, 8, 8, 3), jnp.float32))
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("network.jax", "images.npy", "logits.npy")]
        Path(files[0]).write_bytes(program.serialize())
        np.save(files[1], images[:3])  # another batch size than above
        subprocess.run([sys.executable, "-c", SERVER, *files], check=True)
        logits = np.load(files[2])
    expected: Any = network(images[:3])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    print(f"logits of a fresh process agree to {np.abs(logits - expected).max():.0e}")


if __name__ == "__main__":
    main()
