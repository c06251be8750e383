"""Compare the files of a folder with its index: what is new, changed and gone."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..files import is_uri
from .listing import Failure, ImageFile, Listing
from .schema import FileState
from .store import Store


class Comparison(NamedTuple):
    """How a folder differs from its index."""

    known: dict[str, FileState]
    """The files in the index."""
    changed: list[ImageFile]
    """Readable files that are not in the index, or are there in another state."""
    kept: set[str]
    """Files that the index has as they are, or that cannot be read at the moment."""
    gone: set[str]
    """Files in the index that are no longer in the folder, or no longer images."""
    has_doubles: bool
    """Whether a path is in the index twice."""
    skipped: list[tuple[Path, str]]
    """Files and folders that cannot be read, each with the reason in a sentence."""

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.changed or self.gone or self.has_doubles)


def compare(root: Path, store: Store, *, listing: Listing, unreadable: Mapping[Path, Failure]) -> Comparison:
    """Find out what there is to do.

    Args:
        root: the folder, absolute.
        store: its index.
        listing: the folder's files.
        unreadable: the files among them that this run could not read.

    Raises:
        InputError: if no image is left in a folder that had some. Its disk may be disconnected.
    """
    known = store.files()
    if known and not listing.files and not listing.failures and not _lies_in(store.location, root):
        raise InputError(
            f"There are no images in '{root}', but the index '{store.location}' has {len(known)} of them; "
            "if its disk or network is not connected, connect it; if they are gone for good, delete the index."
        )
    readable = [file for file in listing.files if file.path not in unreadable]
    kept = {file.key for file in readable if known.get(file.key) == file.state}
    changed = [file for file in readable if file.key not in kept]
    gone = known.keys() - kept - {file.key for file in changed}
    skipped: list[tuple[Path, str]] = []
    below = _at_or_below(gone)
    for failure in (*listing.failures, *unreadable.values(), *_dead_links(root, gone)):
        reason = failure.reason
        if failure.temporary:
            stays = gone & below.get(failure.path.relative_to(root).as_posix(), set())
            kept |= stays
            gone -= stays
            if stays:
                reason += f" What the index has of it stays there (images: {len(stays)})."
        skipped.append((failure.path, reason))
    return Comparison(known, changed, kept, gone, len(store) > len(known), skipped)


def _at_or_below(keys: Iterable[str]) -> dict[str, set[str]]:
    """The files by place: each file under its own name, and under each folder that it lies in or below."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for key in keys:
        place = key
        while place:
            places[place].add(key)
            place = place.rpartition("/")[0]
    return places


def _dead_links(root: Path, gone: Iterable[str]) -> list[Failure]:
    """Broken links to folders that had images below them. The linked disk may be disconnected, for example."""
    parents = {(root / key).parent for key in gone}
    folders = {folder for parent in parents for folder in (parent, *parent.parents) if folder.is_relative_to(root)}
    return [
        Failure(folder, f"Cannot list the folder '{folder}': it is a link that leads nowhere.", temporary=True)
        for folder in sorted(folders)
        if folder.is_symlink() and not os.path.exists(folder)
    ]


def _lies_in(location: str, root: Path) -> bool:
    return not is_uri(location) and Path(location).resolve().is_relative_to(root)
