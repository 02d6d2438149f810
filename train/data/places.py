"""The files of a folder by their names, which people and programs spell in capitals now and then."""

from pathlib import Path


def entries(folder: Path) -> dict[str, Path]:
    """The entries of a folder by their lower-case names; empty if there is no such folder."""
    return {path.name.casefold(): path for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def holds(folder: Path, most: int = 3) -> str:
    """The entries of a folder, as a phrase for messages.

    Example:
        >>> holds(Path("nowhere"))
        'nothing'

    """
    names = [path.name for path in entries(folder).values() if not path.name.startswith(".")]
    return ", ".join(names[:most]) + (", …" if len(names) > most else "") or "nothing"
