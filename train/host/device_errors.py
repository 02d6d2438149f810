"""Explanations of device errors, since JAX's own messages do not tell what to do."""

import os


def explain(error: Exception) -> str | None:
    """Explain an error and what to do if the device caused it; return None otherwise.

    Call it after an error has ended a command, since it may be the first to ask JAX for a device.
    """
    import jax

    if "RESOURCE_EXHAUSTED" in str(error):
        return "the device does not have enough memory for this: lower --batch-size, --channels or --hidden"
    wanted = os.environ.get("JAX_PLATFORMS")
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as failure:  # without CUDA, a bare AssertionError
        reason = " ".join(str(failure).partition(" (set JAX_PLATFORMS")[0].split()).rstrip(".")
        why = f" ({reason})" if reason else ""
        return (
            f"JAX cannot compute on {wanted or 'any platform'} here{why}: unset JAX_PLATFORMS, set it to cpu, or "
            "install the jax for the device, as with pip install 'jax[cuda13]'"
        )
    return None
