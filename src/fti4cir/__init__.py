"""Composed image retrieval: find me this picture, but ...

import fti4cir
model = fti4cir.load("mini")
query = model.compose(["shirt.jpg"], ["in red"])     # (1, D), unit length
gallery = model.encode_images(["a.jpg", "b.jpg"])    # (2, D), unit length
scores = query @ gallery.T
"""

from __future__ import annotations

from .errors import CacheError, FtiError, InputError, ModelError, NoRoomError, PictureError, StoreError, TrainingError

# `typing` has the same name, but takes milliseconds in which Ctrl-C would end in a traceback (see `__main__`).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .models.loading import load as load
    from .models.model import Model as Model

__version__ = "0.1.0"
__all__ = [
    "CacheError",
    "FtiError",
    "InputError",
    "Model",
    "ModelError",
    "NoRoomError",
    "PictureError",
    "StoreError",
    "TrainingError",
    "load",
]


def __getattr__(name: str) -> Any:
    # Importing PyTorch takes a second, which `fti4cir --help` need not wait for.
    if name == "load":
        from .models.loading import load

        return load
    if name == "Model":
        from .models.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
