"""A dataset that is published: what there is to download, and how its files are known again."""

import dataclasses
import hashlib
from collections.abc import Mapping

from train.data.download import Archive
from train.host.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Published:
    """A dataset of tensorflow-datasets.

    Attributes:
        name: there, and on the command line.
        title: as people write it.
        class_names: one name a class.
        archives: what there is to download; the builder knows them by these keys.
        files: what a folder must hold to be read instead, as a phrase.
        md5: of the files that are in the archives, by name: to know them again, whoever packed them.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    archives: Mapping[str, Archive]
    files: str
    md5: Mapping[str, str]


class DatasetUnavailableError(UsageError):
    """A dataset is not cached and cannot be prepared here and now.

    Attributes:
        reason: why not, as a phrase.
    """

    def __init__(self, published: Published, reason: str) -> None:
        super().__init__(
            f"{published.title} could not be prepared: {reason}. Pass --data-dir DIR, a folder with "
            f"{published.files}, or --dataset digits, which needs no network"
        )
        self.reason = reason


def compare(published: Published, contents: Mapping[str, bytes]) -> tuple[bool, str]:
    """Compares files with the published ones of the same names; returns the verdict and the note for the user."""
    differing = [
        name
        for name, content in contents.items()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != published.md5[name]
    ]
    if not differing:
        return True, ""
    which = "every file differs" if len(differing) == len(contents) else f"{', '.join(differing)} differ"
    which += "s" if len(differing) == 1 < len(contents) else ""
    return False, f"not the published {published.title}: {which} by MD5 (own data, or damaged?)"
