"""Decide which model a folder or an index is searched with, before any model is loaded."""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreError
from ..models.names import DEFAULT, may_have_made
from .locations import folder_stores
from .store import Store


def model_of_folder(folder: Path, asked: str | None) -> str:
    """The model to search a folder with: `asked`, else that of the index made last, else the default.

    Raises:
        StoreError: if an index in the folder cannot be opened.
    """
    stores = [] if asked else folder_stores(folder)
    return asked or (stores[-1].info.model if stores else DEFAULT)


def model_of_store(store: Store, asked: str | None) -> str:
    """The model to search an index with: `asked`, else the one that made the index.

    Raises:
        StoreError: if the model asked for cannot have made the index.
    """
    made_by = store.info.model
    if asked is not None and not may_have_made(asked, made_by, fingerprint=store.info.fingerprint):
        raise StoreError(
            f"The index '{store.location}' was made with the model '{made_by}', not '{asked}'; leave the model out, or "
            "give the folder of the images, which keeps one index for each model."
        )
    return asked or made_by
