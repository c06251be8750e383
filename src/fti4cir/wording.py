"""Words that messages share."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things, in the singular or the plural; `plural` where that is not the noun with an s.

    >>> counted(1, "image"), counted(0, "image"), counted(2, "query", "queries")
    ('1 image', '0 images', '2 queries')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
