"""The packages that this program needs besides jaxbn's own, and what to install where they are missing."""

from importlib.util import find_spec

EXTRA = "train"
# What every run imports, by the names of the modules. Others of the extra are imported where a command needs them.
NEEDED = {
    "jax": "jax",
    "flax": "flax",
    "numpy": "numpy",
    "tyro": "tyro",
    "rich": "rich",
    "optax": "optax",
    "orbax.checkpoint": "orbax-checkpoint",
    "matplotlib": "matplotlib",
    "filelock": "filelock",
    "jinja2": "jinja2",
}
SOMETIMES = {
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
    "array_record": "array-record",
    "importlib_resources": "importlib-resources",
    "PIL": "pillow",
    "flatbuffers": "flatbuffers",
    "tensorboardX": "tensorboardX",
}


def missing() -> list[str]:
    """The packages that no run can do without, and that are not installed."""
    return [package for module, package in NEEDED.items() if not _is_installed(module)]


def explain(packages: list[str]) -> str:
    """What to install.

    Example:
        >>> explain(["tyro", "rich"])
        "tyro and rich are not installed: pip install 'jaxbn[train]', or in a clone of it pip install '.[train]'"

    """
    named = ", ".join(packages[:-1]) + (" and " if len(packages) > 1 else "") + packages[-1]
    are = "are" if len(packages) > 1 else "is"
    return f"{named} {are} not installed: pip install 'jaxbn[{EXTRA}]', or in a clone of it pip install '.[{EXTRA}]'"


def explain_import(error: ModuleNotFoundError) -> str | None:
    """What to install after an import has failed; None where the module is not one of these packages."""
    top = (error.name or "").partition(".")[0]
    if not top or _is_installed(top):
        return None  # a part of it is missing: it is damaged, or of another version
    found = {module.partition(".")[0]: package for module, package in (NEEDED | SOMETIMES).items()}.get(top)
    return None if found is None else explain([found])


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False
