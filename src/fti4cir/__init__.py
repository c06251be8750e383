"""Composed image retrieval: find me this image, but ...

import fti4cir
fti4cir.open("photos").search("shirt.jpg", text="in red")

model = fti4cir.load("mini")
query = model.compose(["shirt.jpg"], ["in red"])     # (1, D), unit length
gallery = model.encode_images(["a.jpg", "b.jpg"])    # (2, D), unit length
scores = query @ gallery.T
"""

from __future__ import annotations

from .errors import CacheError, FtiError, ImageError, InputError, ModelError, NoRoomError, StoreError, TrainingError

# `typing.TYPE_CHECKING` would do the same, but importing `typing` takes milliseconds, and Ctrl-C in this time would
# show a traceback (see `__main__`).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .models.loading import load as load
    from .models.model import Model as Model
    from .search.collection import Collection as Collection
    from .search.collection import open as open

__version__ = "0.1.0"
__all__ = [
    "CacheError",
    "Collection",
    "FtiError",
    "ImageError",
    "InputError",
    "Model",
    "ModelError",
    "NoRoomError",
    "StoreError",
    "TrainingError",
    "load",
    "open",
]


def __getattr__(name: str) -> Any:
    # Importing PyTorch takes a second; `fti4cir --help` does not need it.
    if name == "load":
        from .models.loading import load

        return load
    if name == "Model":
        from .models.model import Model

        return Model
    if name in ("open", "Collection"):
        from .search import collection

        return getattr(collection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
