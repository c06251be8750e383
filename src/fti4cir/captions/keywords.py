"""The keywords of a caption: what it says, without the little words between."""

from __future__ import annotations

from collections.abc import Iterable

from .split import tagger

_WORDS = frozenset({"NOUN", "PROPN", "ADJ"})


def keywords(captions: Iterable[str]) -> list[list[tuple[int, int]]]:
    """Where each caption's keywords are: runs of adjectives and nouns that hold a noun, as spans of characters.

    Of "a black dog on the green grass" they are "black dog" and "green grass".

    Raises:
        TrainingError: if spaCy or its English model is not installed.

    """
    found = []
    for doc in tagger().pipe(captions, batch_size=256):
        spans: list[tuple[int, int]] = []
        start = end = None
        for token in [*doc, None]:
            if token is not None and token.pos_ in _WORDS:
                start = token.idx if start is None else start
                if token.pos_ != "ADJ":
                    end = token.idx + len(token.text)
            else:
                if start is not None and end is not None:
                    spans.append((start, end))
                start = end = None
        found.append(spans)
    return found
