"""The errors a user can meet, one tree. Each message names what is wrong and how to fix it.

FtiError
├── InputError          an input cannot be used: a file, a folder, a text, an option
│   └── ImageError      one image cannot be read
├── ModelError          a model, or weights for it, cannot be loaded or do not match
├── StoreError          an index of images cannot be opened or belongs to another model
├── CacheError          a cache of features cannot be used or written
│   └── NoRoomError     the disk does not have enough room for it
└── TrainingError       training cannot start or continue

There is one warning, CutWarning: a text was too long.
"""

from __future__ import annotations


class FtiError(Exception):
    """Base of every error that fti4cir raises on purpose."""


class InputError(FtiError):
    """An input cannot be used: a file, a folder, a text or an option."""


class ImageError(InputError):
    """One image cannot be read."""


class ModelError(FtiError):
    """A model, or weights for it, cannot be loaded, or the two do not match."""


class StoreError(FtiError):
    """An index of images cannot be opened, or another model made it."""


class CacheError(FtiError):
    """A cache of features cannot be used or written. Its previous content is kept."""


class NoRoomError(CacheError):
    """The features need more room than the disk has. Nothing was written."""


class TrainingError(FtiError):
    """Training cannot start or cannot continue."""


class CutWarning(UserWarning):
    """A sentence was longer than the encoder can read, and a part of it was left out."""
