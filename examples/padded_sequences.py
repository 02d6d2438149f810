"""Sequences of different lengths, padded to one array: the padding changes nothing, in training or evaluation.

    python examples/padded_sequences.py

A stack of one-dimensional convolutions over (batch, time, features). Two things are necessary. The norm takes
`mask=`, so that only real time steps count in the statistics. And the padding is set to zero in front of each
convolution, because a convolution reads its neighbours, and behind a norm the padding is no longer zero.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxbn.linen import BatchNorm


class Network(nn.Module):
    """Two convolutions with norms, a mean over the real time steps, and one output."""

    masked: bool = True  # False shows the effect of a missing mask

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array, train: bool) -> jax.Array:
        """One number per sequence, from `x` of shape (batch, time, features)."""
        real = (jnp.arange(x.shape[1]) < lengths[:, None])[..., None]  # (batch, time, 1)
        for width in (8, 8):
            x = jnp.where(real, x, 0)
            x = nn.Conv(width, kernel_size=(3,), use_bias=False)(x)
            norm = BatchNorm(use_running_average=not train, momentum=0.9, activation="relu")
            x = norm(x, mask=real if self.masked else None)
        return nn.Dense(1)(x.mean(axis=1, where=real))[:, 0]


def padded(sequences: list[np.ndarray], time: int, filling: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """The sequences as one array of shape (batch, time, features), and their lengths."""
    widths = [((0, time - len(sequence)), (0, 0)) for sequence in sequences]
    rows = [np.pad(s, width, constant_values=filling) for s, width in zip(sequences, widths, strict=True)]
    return jnp.asarray(np.stack(rows)), jnp.asarray([len(sequence) for sequence in sequences])


def main() -> None:
    """Compare a batch padded to 12 time steps with the same batch padded to 40."""
    random = np.random.default_rng(0)
    sequences = [random.normal(3, 2, (length, 4)).astype(np.float32) for length in (12, 7, 4)]
    batches = padded(sequences, 12), padded(sequences, 40), padded(sequences, 40, filling=np.nan)
    variables: Any = jax.jit(partial(Network().init, train=False))(jax.random.key(0), *batches[0])

    @partial(jax.jit, static_argnums=0)
    def trained(network: Network, x: jax.Array, lengths: jax.Array) -> Any:  # noqa: ANN401
        """The loss and the new running statistics; the gradients."""

        def loss(params: Any) -> tuple[jax.Array, Any]:  # noqa: ANN401
            y, updates = network.apply(variables | {"params": params}, x, lengths, True, mutable=["batch_stats"])
            return jnp.square(y - 1).mean(), updates

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    results = [trained(Network(), *batch) for batch in batches]
    for result in results[1:]:  # loss, running statistics and gradients
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), results[0], result)
    print(f"training, padded to 12, to 40, to 40 with NaN: loss {', '.join(f'{r[0][0]:.5f}' for r in results)}")

    variables |= results[0][0][1]  # the new running statistics
    evaluate = jax.jit(lambda x, lengths: Network().apply(variables, x, lengths, train=False))
    shortest = evaluate(*padded(sequences[-1:], 4))  # on its own, without padding
    for batch in batches:
        np.testing.assert_allclose(evaluate(*batch)[-1:], shortest, rtol=1e-4, atol=1e-5)
    print("evaluation: a sequence gives the same result in any batch, padded or alone")

    first, second = (trained(Network(masked=False), *batch)[0][0] for batch in batches[:2])
    assert abs(first - second) > 0.01
    print(f"training without the mask: loss {first:.5f}, {second:.5f}: the padding counts")


if __name__ == "__main__":
    main()
