"""What is said where JAX cannot compute: with its own words alone, people could not tell what to do."""

import os


def explain(error: Exception) -> str | None:
    """What an error is about and what to do, if the device is the reason; None where it is not.

    To be called where an error has ended a command: JAX is not asked for a device before anything else has.
    """
    import jax

    if "RESOURCE_EXHAUSTED" in str(error):
        return "the device has not enough memory for this: lower --batch-size, --channels or --hidden"
    wanted = os.environ.get("JAX_PLATFORMS")
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as failure:  # of a CUDA that is not there, a bare AssertionError
        reason = " ".join(str(failure).partition(" (set JAX_PLATFORMS")[0].split()).rstrip(".")
        why = f" ({reason})" if reason else ""
        return (
            f"JAX cannot compute on {wanted or 'any platform'} here{why}: unset JAX_PLATFORMS, set it to cpu, or "
            "install the jax for the device, as with pip install 'jax[cuda13]'"
        )
    return None
