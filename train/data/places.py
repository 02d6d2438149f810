"""The files of a folder by their names, regardless of case."""

from pathlib import Path


def entries(folder: Path) -> dict[str, Path]:
    """The entries of a folder by their lower-case names; empty if the folder does not exist."""
    return {path.name.casefold(): path for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def holds(folder: Path, most: int = 3) -> str:
    """The entries of a folder, as a phrase for messages.

    Example:
        >>> holds(Path("nowhere"))
        'nothing'

    """
    names = [path.name for path in entries(folder).values() if not path.name.startswith(".")]
    return ", ".join(names[:most]) + (", …" if len(names) > most else "") or "nothing"
