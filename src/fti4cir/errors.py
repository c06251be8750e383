"""The errors a user can meet, one tree. Each message is one sentence that names the thing and the mend.

FtiError
├── InputError          what the user gave cannot be used: a file, a folder, a text, an option
│   └── ImageError    one image cannot be read
├── ModelError          a model, or weights for it, cannot be loaded or do not fit each other
├── StoreError          a store of indexed images cannot be opened or does not fit the model
├── CacheError          a cache of features cannot be used or written
│   └── NoRoomError     the disk has too little room for it
└── TrainingError       training cannot start or go on

And one warning, CutWarning: a text was too long.
"""

from __future__ import annotations


class FtiError(Exception):
    """Base of every error that fti4cir raises on purpose."""


class InputError(FtiError):
    """What the user gave cannot be used: a file, a folder, a text or an option."""


class ImageError(InputError):
    """One image cannot be read."""


class ModelError(FtiError):
    """A model, or weights for it, cannot be loaded, or the two do not fit each other."""


class StoreError(FtiError):
    """A store of indexed images cannot be opened, or another model made it."""


class CacheError(FtiError):
    """A cache of features cannot be used or written; what it held before is kept."""


class NoRoomError(CacheError):
    """The features take more than the disk has left; nothing was written."""


class TrainingError(FtiError):
    """Training cannot start or cannot go on."""


class CutWarning(UserWarning):
    """A sentence was longer than the encoder reads, and a part of it was left out."""
