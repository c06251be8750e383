"""Decide which model a folder or a store is searched with, before any model is loaded."""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreError
from ..models.names import DEFAULT, may_have_made
from .store import Store, folder_stores


def model_of_folder(folder: Path, asked: str | None) -> str:
    """The model to search a folder with: `asked`, else that of the index made last, else the default.

    Raises:
        StoreError: if an index in the folder cannot be opened.
    """
    stores = [] if asked else folder_stores(folder)
    return asked or (stores[-1].info.model if stores else DEFAULT)


def model_of_store(store: Store, asked: str | None) -> str:
    """The model to search a store with: `asked`, else the one that made the store.

    Raises:
        StoreError: if the model asked for cannot have made the store.
    """
    made_by = store.info.model
    if asked is not None and not may_have_made(asked, made_by, fingerprint=store.info.fingerprint):
        raise StoreError(
            f"The store '{store.location}' was made with the model '{made_by}', not '{asked}'; leave the model out, or "
            "give the folder of the images, which keeps one index for each model."
        )
    return asked or made_by
