"""An Equinox layer over `jaxbn.batch_norm`: the constructor of Equinox's own, no numerics of its own."""

from collections.abc import Hashable, Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxbn._batch_norm import batch_norm
from jaxbn._normalize import Activation, ActivationName
from jaxbn._renorm import BatchRenorm
from jaxbn._schedules import Schedule, debiased
from jaxbn._state import BatchNormParams, BatchNormState, init

__all__ = ["BatchNorm"]


class BatchNorm(eqx.nn.StatefulLayer):
    """Batch normalization with the constructor and the call of `equinox.nn.BatchNorm`.

    It takes one example with the channels first, inside a `jax.vmap` that names the axis of the batch. The running
    statistics, and the number of updates, are a `jaxbn.BatchNormState` in the `equinox.nn.State`. The weight and the
    bias have Equinox's names. `equinox.nn.inference_mode` switches to the running statistics.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from jaxbn.equinox import BatchNorm
        >>> layer, state = eqx.nn.make_with_state(BatchNorm)(1, axis_name="batch")
        >>> mapped = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        >>> y, state = mapped(jnp.array([[1.0], [3.0]]), state)
        >>> print(y.round(3), state.get(layer.state_index).mean)
        [[-1.]
         [ 1.]] [2.]

    Differs elsewhere: in mode "batch", `equinox.nn.BatchNorm` divides an average of variances that begins at 1 by
    1 − momentumᵗ, so that evaluation sees variances that are too large at first, by 99 after one step; here evaluation
    is exact from the first step on. Its mode "ema", which normalises by the running statistics in training too, does
    not exist here.

    """

    weight: jax.Array | None
    bias: jax.Array | None
    state_index: eqx.nn.StateIndex[BatchNormState]
    axis_name: Hashable | Sequence[Hashable]
    inference: bool
    input_size: int = eqx.field(static=True)
    eps: float = eqx.field(static=True)
    channelwise_affine: bool = eqx.field(static=True)
    momentum: float | Schedule = eqx.field(static=True)
    unbiased: bool = eqx.field(static=True)
    renorm: BatchRenorm | None = eqx.field(static=True)
    activation: ActivationName | Activation | None = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        axis_name: Hashable | Sequence[Hashable],
        eps: float = 1e-5,
        channelwise_affine: bool = True,
        momentum: float | Schedule = 0.99,
        inference: bool = False,
        dtype: DTypeLike | None = None,
        mode: Literal["batch"] = "batch",
        *,
        unbiased: bool = False,
        renorm: BatchRenorm | None = None,
        activation: ActivationName | Activation | None = None,
    ) -> None:
        """Makes the parameters, and the statistics before any update.

        Args:
            input_size: the number of channels.
            axis_name: the axis of the batch, as `jax.vmap` names it, or several.
            eps: added to the variance under the root.
            channelwise_affine: whether to learn a weight and a bias.
            momentum: m, for averages that are divided by 1 − mᵗ, as Equinox's are: `jaxbn.debiased(m)`. Or any
                schedule.
            inference: True to normalise with the running statistics.
            dtype: type of weight and bias, and of the statistics, which are float32 at least.
            mode: "batch", the only one.
            unbiased: this and the following are options of `jaxbn.batch_norm` that Equinox does not have; see there.
            renorm: bounds of batch renormalization.
            activation: applied last.

        """
        if mode != "batch":
            raise ValueError(
                f'mode must be "batch", which trains by the statistics of the batch; got {mode!r}. To normalise by the '
                "running ones in training, pass renorm=jaxbn.BatchRenorm(inf, inf)"
            )
        dtype = jnp.result_type(float) if dtype is None else dtype
        params, state = init(input_size, dtype=dtype)
        self.weight, self.bias = params if channelwise_affine else (None, None)
        self.state_index = eqx.nn.StateIndex(state)
        self.axis_name = axis_name
        self.inference = inference
        self.input_size = input_size
        self.eps = eps
        self.channelwise_affine = channelwise_affine
        self.momentum = momentum if callable(momentum) else debiased(momentum)
        self.unbiased = unbiased
        self.renorm = renorm
        self.activation = activation

    @jax.named_scope("jaxbn.equinox.BatchNorm")
    def __call__(
        self,
        x: jax.Array,
        state: eqx.nn.State,
        *,
        key: jax.Array | None = None,
        inference: bool | None = None,
        mask: ArrayLike | None = None,
        residual: ArrayLike | None = None,
    ) -> tuple[jax.Array, eqx.nn.State]:
        """Normalises one example by the statistics of its batch, or by the running ones.

        Args:
            x: of shape (input_size, …).
            state: holds the running statistics.
            key: ignored, as in Equinox.
            inference: takes precedence over the layer's own.
            mask: which entries count: bool, or weights, broadcastable to `x`.
            residual: of the shape of `x`, added before the activation.

        Returns:
            `(y, state)`: the normalised example, and the state with the statistics that are new.

        """
        del key
        train = not (self.inference if inference is None else inference)
        y, new = batch_norm(
            BatchNormParams(self.weight, self.bias),
            state.get(self.state_index),
            x,
            train,
            axis=0,
            momentum=self.momentum,
            epsilon=self.eps,
            unbiased=self.unbiased,
            mask=mask,
            axis_name=self.axis_name,
            renorm=self.renorm,
            residual=residual,
            activation=self.activation,
        )
        return y, state.set(self.state_index, new) if train else state
