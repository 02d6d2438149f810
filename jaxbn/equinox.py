"""A BatchNorm layer for Equinox that calls `jaxbn.batch_norm`, with the constructor of Equinox's own."""

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

    The layer takes one example with the channels first, inside a `jax.vmap` that names the axis of the batch. The
    running statistics and the number of updates are a `jaxbn.BatchNormState` in the `equinox.nn.State`. The weight γ
    and the bias β have Equinox's names. `equinox.nn.inference_mode` switches to the running statistics. The formulas
    are those of `jaxbn.batch_norm`.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from jaxbn.equinox import BatchNorm
        >>> layer, state = eqx.nn.make_with_state(BatchNorm)(1, axis_name="batch")
        >>> mapped = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        >>> y, state = mapped(jnp.array([[1.0], [3.0]]), state)
        >>> print(y.round(3), state.get(layer.state_index).mean)
        [[-1.]
         [ 1.]] [2.]

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2; the interface is Equinox's.

    Differs elsewhere: in mode "batch", `equinox.nn.BatchNorm` starts its average of variances at 1 and divides it by
    1 − momentumᵗ, so that the variances in evaluation are too large at first: by 99 after one step, at the default
    momentum. Here evaluation is exact from the first step on. The mode "ema", which normalises with the running
    statistics in training as well, does not exist here.

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
        """Make the parameters and the initial statistics.

        Args:
            input_size: the number of channels.
            axis_name: the name that `jax.vmap` gives the axis of the batch, or a tuple of such names.
            eps: added to the variance under the root.
            channelwise_affine: whether to learn a weight and a bias.
            momentum: a number m, which stands for `jaxbn.debiased(m)`, Equinox's averages divided by 1 − mᵗ; or any
                schedule.
            inference: True to normalise with the running statistics.
            dtype: type of weight and bias, and of the statistics, which are float32 at least.
            mode: must be "batch".
            unbiased: whether the running variance takes the m/(m−1) estimate. This option and all below are those of
                `jaxbn.batch_norm`, described there; Equinox does not have them.
            renorm: the bounds of batch renormalization.
            activation: applied last.

        Raises:
            TypeError: `input_size` is not an integer, or `momentum` or `dtype` is of the wrong kind.
            ValueError: `mode` is not "batch", or `input_size` or `momentum` is out of range.

        """
        if mode != "batch":
            raise ValueError(
                f'mode must be "batch", which trains with the batch\'s statistics; got {mode!r}. To normalise with the '
                "running statistics in training, pass renorm=jaxbn.BatchRenorm(inf, inf)"
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
        """Normalise one example with the statistics of its batch, or with the running ones.

        Args:
            x: one example, of shape (input_size, …).
            state: the `equinox.nn.State` that holds the running statistics.
            key: ignored, as in Equinox.
            inference: takes precedence over the layer's attribute.
            mask: which entries count: bools or weights, broadcastable to `x`.
            residual: an array of the shape of `x`, added before the activation.

        Returns:
            `(y, state)`: the normalised example, and the state with the updated statistics.

        Raises:
            TypeError: `x` holds integers, or an argument is of the wrong kind.
            ValueError: shapes disagree, or `axis_name` is not bound by a `jax.vmap` around the call.

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
