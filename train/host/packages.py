"""The packages that this program needs in addition to those of jaxbn, and how to install missing ones."""

from importlib.util import find_spec

EXTRA = "train"
# The packages that every run imports, by module. A command imports other packages of the extra where it needs them.
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
    "scipy": "scipy",  # which jax needs too
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
    "array_record": "array-record",
    "importlib_resources": "importlib-resources",
    "PIL": "pillow",
    "flatbuffers": "flatbuffers",
    "tensorboardX": "tensorboardX",
}


def missing() -> list[str]:
    """The packages that every run needs and that are not installed, found without importing anything."""
    return [package for module, package in NEEDED.items() if find_spec(_top(module)) is None]


def explain(packages: list[str]) -> str:
    """Return the line that tells which packages to install.

    Example:
        >>> explain(["tyro", "rich"])
        "tyro and rich are not installed: run pip install -e '.[train]' in this checkout"

    """
    named = ", ".join(packages[:-1]) + (" and " if len(packages) > 1 else "") + packages[-1]
    are = "are" if len(packages) > 1 else "is"
    return f"{named} {are} not installed: run pip install -e '.[{EXTRA}]' in this checkout"


def explain_import(error: ModuleNotFoundError) -> str | None:
    """Tell which package to install after a failed import; return None if the module belongs to none of them.

    It is also None for an installed package that lacks a part, since it is damaged or of another version.
    """
    known, name = NEEDED | SOMETIMES, error.name or ""
    for module, package in known.items():
        if name == module or (_top(name) == _top(module) and find_spec(_top(module)) is None):
            return explain([package])
    return None


def _top(module: str) -> str:
    return module.partition(".")[0]
