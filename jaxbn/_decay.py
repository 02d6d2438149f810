"""The mask of weight decay: every parameter except the scales and biases of norms."""

from typing import Any

import jax

from jaxbn._paths import names

_LEARNED = {"scale", "bias", "offset"}  # "offset" is Haiku's name for a bias
_STATISTICS = {"mean", "var", "count"}


def decay_mask(params: Any) -> Any:  # noqa: ANN401
    """Mark the parameters that weight decay applies to: all except the scales and biases of norms.

    The norm behind a kernel undoes any scaling of it, so decay of the kernel only raises its effective learning rate.
    Decay of γ and β themselves would pull a channel towards being dead.

    Norms are recognised by their form: a group of parameters (a dictionary, an NNX state, a named tuple) that holds
    only a `scale`, a `bias` (Haiku's `offset`), or both, directly as arrays. LayerNorm, GroupNorm and RMSNorm have the
    same form and are left out as well. A group with only a `bias` may also be a layer that adds a bias; it counts as a
    norm, since biases should not decay either. A `bias` beside a `kernel` does not belong to a norm, and is marked.

    Args:
        params: a pytree of parameters: Linen's `variables["params"]`, `nnx.state(model, nnx.Param)`, or any pytree that
            holds `jaxbn.BatchNormParams`.

    Returns:
        The same pytree with a bool in place of each array: False for the parameters of norms, True for all others.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "norm": jaxbn.init(3)[0]}
        >>> jaxbn.decay_mask(params)["dense"], jaxbn.decay_mask(params)["norm"]
        ({'bias': True, 'kernel': True}, BatchNormParams(scale=False, bias=False))

    Optax takes the function itself as a mask: `optax.adamw(1e-3, weight_decay=1e-2, mask=jaxbn.decay_mask)`.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.3; optax issue 25.

    Differs elsewhere: `optax.adamw` and PyTorch's optimizers decay every parameter by default.

    """
    places = [names(path) for path, _ in jax.tree.leaves_with_path(params)]
    groups: dict[tuple, set] = {}
    for path in places:
        for depth, name in enumerate(path):
            groups.setdefault(path[:depth], set()).add(name)
    marks = [not _is_of_norm(path, groups) for path in places]
    return jax.tree.unflatten(jax.tree.structure(params), marks)


def _is_of_norm(path: tuple, groups: dict[tuple, set]) -> bool:
    """True if the array is in a group of only scale and bias, with or without running statistics."""
    if path and path[-1] == "value":  # of an NNX variable
        path = path[:-1]
    if not path or not _LEARNED & groups[path[:-1]]:
        return False
    own = groups[path[:-1]]
    has_statistics = {"mean", "var"} <= own
    arrays = all(groups.get((*path[:-1], name), {"value"}) == {"value"} for name in own)
    return arrays and own <= _LEARNED | (_STATISTICS if has_statistics else set())
