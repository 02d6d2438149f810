"""One layer of batch normalization in each library, behind one interface: ours, and those that it is compared with.

Every library gets the same numbers, the same epsilon and the same momentum (in its own convention), updates its
running statistics in its own way, and returns the gradients of everything that is differentiated: input, scale, bias
and residual. Arrays have the channels last, except for Equinox and PyTorch's contiguous format, which get their own.
Scale and bias are float32; the result has the type of the input. A library that is not installed is skipped, with a
message.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.case import EPSILON, MOMENTUM, OURS, Case, Kind, Peer
from benchmarks.installed import installed
from benchmarks.keras_torch import KerasTorchPeer
from benchmarks.torch_peer import TorchPeer

# A norm: (state, x, scale, bias) -> (y, new state). A block: (state, x, scale, bias, residual) -> (y, new state).
Norm = Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
Block = Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array | None], tuple[jax.Array, Any]]


@dataclass(frozen=True)
class JaxPeer:
    """A JAX library: forward and backward pass in one jitted function whose arguments are all its arrays."""

    name: str
    make: Callable[[Kind], tuple[Block, Any]]  # the block for such cases, and its first state
    channels_first: bool = False  # the layout that the library's layer wants

    def step(self, case: Case) -> Callable[[], tuple]:
        """The jitted step, with its arguments on the device."""
        run, state = _jitted(self.make, case.kind)
        inputs = jax.device_put((*self._inputs(case), state, self._layout(case.cotangent)))
        return lambda: run(*inputs)

    def result_and_gradient(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """The result and the gradient of `x`, channels last."""
        y, (dx, *_), _ = self.step(case)()
        y, dx = np.asarray(y), np.asarray(dx)
        return (np.moveaxis(y, 1, -1), np.moveaxis(dx, 1, -1)) if self.channels_first else (y, dx)

    def kept_bytes(self, case: Case) -> int:
        """The leaves of the function that `jax.vjp` returns, each array once."""
        block, state = self.make(case.kind)
        inputs = jax.device_put(self._inputs(case))
        _, backward, _ = jax.vjp(jax.jit(partial(block, state)), *inputs, has_aux=True)
        leaves = {id(leaf): leaf for leaf in jax.tree.leaves(backward)}.values()
        return sum(leaf.nbytes for leaf in leaves if leaf.size >= case.x.size / 2)

    def _inputs(self, case: Case) -> tuple:
        return self._layout(case.x), case.scale, case.bias, self._layout(case.residual)

    def _layout(self, array: np.ndarray | None) -> np.ndarray | None:
        return np.ascontiguousarray(np.moveaxis(array, -1, 1)) if self.channels_first and array is not None else array


@cache
def _jitted(make: Callable[[Kind], tuple[Block, Any]], kind: Kind) -> tuple[Callable[..., tuple], Any]:
    """Forward and backward pass as one program, and the first state."""
    block, state = make(kind)

    @jax.jit
    def run(x: jax.Array, scale: jax.Array, bias: jax.Array, residual: Any, state: Any, g: jax.Array) -> tuple:
        y, backward, new_state = jax.vjp(partial(block, state), x, scale, bias, residual, has_aux=True)
        return y, backward(g), new_state

    return run, state


def _composed(norm: Norm, kind: Kind) -> Block:
    """The block of a library whose layer only normalises, as all but ours: residual and activation come after it."""

    def block(
        state: Any, x: jax.Array, scale: jax.Array, bias: jax.Array, residual: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        y, new_state = norm(state, x, scale, bias)
        y = y.astype(x.dtype)
        y = y if residual is None else y + residual
        return (jax.nn.relu(y) if kind.relu else y), new_state

    return block


def _ours(kind: Kind) -> tuple[Block, Any]:
    import jaxbn

    def block(
        state: Any, x: jax.Array, scale: jax.Array, bias: jax.Array, residual: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        params, activation = jaxbn.BatchNormParams(scale, bias), "relu" if kind.relu else None
        options = {"momentum": MOMENTUM, "epsilon": EPSILON, "residual": residual, "activation": activation}
        return jaxbn.batch_norm(params, state, x, True, **options)

    return block, jaxbn.init(kind.shape[-1])[1]


def _flax(kind: Kind, use_fast_variance: bool) -> tuple[Block, Any]:
    import flax.linen as nn

    layer = nn.BatchNorm(
        use_running_average=False,
        momentum=MOMENTUM,
        epsilon=EPSILON,
        dtype=kind.dtype,
        use_fast_variance=use_fast_variance,
    )

    def norm(state: Any, x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": state}
        y, updated = layer.apply(variables, x, mutable=["batch_stats"])
        return y, updated["batch_stats"]

    return _composed(norm, kind), layer.init(jax.random.key(0), jnp.zeros(kind.shape, kind.dtype))["batch_stats"]


def _haiku(kind: Kind) -> tuple[Block, Any]:
    import haiku as hk

    layer = hk.transform_with_state(lambda x: hk.BatchNorm(True, True, MOMENTUM, EPSILON)(x, is_training=True))
    wide = (*[1] * (len(kind.shape) - 1), kind.shape[-1])

    def norm(state: Any, x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
        params = {"batch_norm": {"scale": scale.reshape(wide), "offset": bias.reshape(wide)}}
        return layer.apply(params, state, None, x)

    return _composed(norm, kind), layer.init(jax.random.key(0), jnp.zeros(kind.shape, kind.dtype))[1]


def _equinox(kind: Kind) -> tuple[Block, Any]:
    import equinox as eqx

    layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        kind.shape[-1], axis_name="batch", eps=EPSILON, momentum=MOMENTUM, mode="batch"
    )

    def norm(state: Any, x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
        learned = eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (scale, bias))
        return jax.vmap(learned, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    return _composed(norm, kind), state


def _keras(kind: Kind) -> tuple[Block, Any]:
    import keras

    policy = "mixed_bfloat16" if kind.dtype == jnp.bfloat16 else "float32"
    layer = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, dtype=policy)
    layer.build(kind.shape)

    def norm(state: Any, x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
        return layer.stateless_call([scale, bias], state, x, training=True)

    return _composed(norm, kind), [variable.value for variable in layer.non_trainable_variables]


PEERS: tuple[tuple[tuple[str, ...], Peer], ...] = (  # what each needs to be installed, ours first
    (("jaxbn",), JaxPeer(OURS, _ours)),
    (("flax",), JaxPeer("Flax", partial(_flax, use_fast_variance=True))),
    (("flax",), JaxPeer("Flax two-pass", partial(_flax, use_fast_variance=False))),
    (("haiku",), JaxPeer("Haiku", _haiku)),
    (("equinox",), JaxPeer("Equinox", _equinox, channels_first=True)),
    (("keras",), JaxPeer("Keras (JAX)", _keras)),
    (("keras", "torch"), KerasTorchPeer("Keras (torch)")),
    (("torch",), TorchPeer("PyTorch", channels_last=False)),
    (("torch",), TorchPeer("PyTorch channels-last", channels_last=True)),
    (("torch", "torch.compile"), TorchPeer("PyTorch compiled", channels_last=False, compiled=True)),
    (("torch", "torch.compile"), TorchPeer("PyTorch compiled, channels-last", channels_last=True, compiled=True)),
)


def available() -> list[Peer]:
    """The installed libraries; prints the others."""
    return [peer for needs, peer in PEERS if all(map(installed, needs))]
