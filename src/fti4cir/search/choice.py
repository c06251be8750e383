"""Which model a folder or a store is searched with, decided before any model is loaded."""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreError
from ..models.names import DEFAULT, may_have_made
from .store import Store, folder_stores


def model_of_folder(folder: Path, asked: str | None) -> str:
    """Which model a folder is searched with: the one asked for, else that of the index made last, else the default.

    StoreError if an index in the folder cannot be opened.
    """
    stores = [] if asked else folder_stores(folder)
    return asked or (stores[-1].info.model if stores else DEFAULT)


def model_of_store(store: Store, asked: str | None) -> str:
    """Which model a store is searched with; StoreError if what was asked for cannot have made it."""
    made_by = store.info.model
    if asked is not None and not may_have_made(asked, made_by, fingerprint=store.info.fingerprint):
        raise StoreError(
            f"The store '{store.location}' was made with the model '{made_by}', not '{asked}'; leave the model out, or "
            "give the folder of the images, which keeps one index a model."
        )
    return asked or made_by
