"""Which parameters weight decay applies to."""

from typing import Any

import jax

from jaxbn._paths import names

_LEARNED = {"scale", "bias", "offset"}  # "offset" is Haiku's name for a bias
_STATISTICS = {"mean", "var", "count"}


def decay_mask(params: Any) -> Any:  # noqa: ANN401
    """Marks what weight decay is for: everything but the scales and biases of norms.

    In front of a norm, the size of a kernel does not matter, and decay only raises its effective learning rate; on a
    norm's own γ and β decay is a pull to a dead channel.

    Norms are known by their form: a group of parameters (a dictionary, an NNX state, a tuple with names) that holds
    nothing but a `scale`, a `bias` (Haiku's `offset`), or both, arrays directly. So are those of LayerNorm, GroupNorm
    and RMSNorm. A group with nothing but a `bias` may also be a layer that only adds one; that is taken for a norm
    without scale, since biases are not to be decayed either. The `bias` beside a `kernel` is no norm's, and is marked.

    Args:
        params: a pytree: Linen's `variables["params"]`, `nnx.state(model, nnx.Param)`, or anything that holds
            `jaxbn.BatchNormParams`.

    Returns:
        The same pytree with a bool in place of each array: False for norms, True elsewhere.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> params = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "norm": jaxbn.init(3)[0]}
        >>> jaxbn.decay_mask(params)["dense"], jaxbn.decay_mask(params)["norm"]
        ({'bias': True, 'kernel': True}, BatchNormParams(scale=False, bias=False))

    The function itself is a mask too: `optax.adamw(1e-3, weight_decay=1e-2, mask=jaxbn.decay_mask)`.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.3; optax issue 25.

    """
    places = [names(path) for path, _ in jax.tree.leaves_with_path(params)]
    groups: dict[tuple, set] = {}
    for path in places:
        for depth, name in enumerate(path):
            groups.setdefault(path[:depth], set()).add(name)
    marks = [not _is_of_norm(path, groups) for path in places]
    return jax.tree.unflatten(jax.tree.structure(params), marks)


def _is_of_norm(path: tuple, groups: dict[tuple, set]) -> bool:
    """Whether the group that this array lies in is one of scale and bias, beside running statistics or not."""
    if path and path[-1] == "value":  # of an NNX variable
        path = path[:-1]
    if not path or not _LEARNED & groups[path[:-1]]:
        return False
    own = groups[path[:-1]]
    has_statistics = {"mean", "var"} <= own
    arrays = all(groups.get((*path[:-1], name), {"value"}) == {"value"} for name in own)
    return arrays and own <= _LEARNED | (_STATISTICS if has_statistics else set())
