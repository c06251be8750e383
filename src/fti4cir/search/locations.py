"""Where the indexes of a folder lie: in its hidden folder `.fti4cir`, one index for each model."""

from __future__ import annotations

import re
from pathlib import Path

from .store import Store


def default_location(folder: str | Path) -> Path:
    """Where a folder's first index lies if no other place was given."""
    return Path(folder) / ".fti4cir"


def folder_stores(folder: str | Path) -> list[Store]:
    """The indexes in a folder, one for each model, in the order in which they were made.

    The first lies in `.fti4cir` itself. Others lie in folders within it whose names begin with a number.

    Raises:
        StoreError: if one of them cannot be opened.
    """
    top = default_location(folder)
    numbered = sorted((number, place) for place in _listed(top) if (number := _number(place)) is not None)
    places = [top, *(place for _, place in numbered)]
    return [Store.open(place) for place in places if Store.exists(place)]


def location_for(folder: str | Path, model: str, *, fingerprint: str) -> Path:
    """The place of a folder's index for a model, which may not have been made yet.

    Args:
        folder: the folder of images.
        model: the model's name, which becomes part of the name of a second index.
        fingerprint: identifies the model.

    Raises:
        StoreError: if an index in the folder cannot be opened.
    """
    stores = folder_stores(folder)
    for store in stores:
        if store.info.fingerprint == fingerprint:
            return Path(store.location)
    top = default_location(folder)
    if not Store.exists(top):
        return top
    last = max(_number(Path(store.location)) or 1 for store in stores)
    name = re.sub(r"[^a-z0-9]+", "-", Path(model).name.lower()).strip("-") or "model"
    return top / f"{last + 1}-{name[:40]}"


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # missing, or not a folder: `Store.exists` decides what that means
        return []


def _number(place: Path) -> int | None:
    """The number at the beginning of an index folder's name; None if there is none."""
    found = re.match(r"(\d{1,9})-", place.name)
    return int(found[1]) if found else None
