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
    """The packages that no run can do without, and that are not installed; nothing is imported to find out."""
    return [package for module, package in NEEDED.items() if find_spec(_top(module)) is None]


def explain(packages: list[str]) -> str:
    """The line that says what to install.

    Example:
        >>> explain(["tyro", "rich"])
        "tyro and rich are not installed: run pip install -e '.[train]' in this checkout"

    """
    named = ", ".join(packages[:-1]) + (" and " if len(packages) > 1 else "") + packages[-1]
    are = "are" if len(packages) > 1 else "is"
    return f"{named} {are} not installed: run pip install -e '.[{EXTRA}]' in this checkout"


def explain_import(error: ModuleNotFoundError) -> str | None:
    """The packages to install after a failed import; None if the module is not one of them.

    Of a package that is installed, and lacks a part, it is None too: it is damaged, or of another version.
    """
    known, name = NEEDED | SOMETIMES, error.name or ""
    for module, package in known.items():
        if name == module or (_top(name) == _top(module) and find_spec(_top(module)) is None):
            return explain([package])
    return None


def _top(module: str) -> str:
    return module.partition(".")[0]
