"""The keywords of a caption: what it says, without the little words between; by two rules."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from .split import tagger

if TYPE_CHECKING:
    from spacy.tokens import Token

_WORDS = frozenset({"NOUN", "PROPN", "ADJ"})
_WORDS_OF_RUNS = _WORDS | {"DET"}


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


def keyword_runs(captions: Iterable[str]) -> list[list[str]]:
    """Each caption's keywords by LinCIR's rule: all runs of nouns, proper nouns, adjectives and determiners.

    A run is given as its tokens with one space between them, as LinCIR looks for it: of "a black dog, a t-shirt"
    "a black dog" and "a t - shirt", which the caption does not hold letter for letter.

    Raises:
        TrainingError: if spaCy or its English model is not installed.

    """
    return [
        [" ".join(token.text for token in run) for wanted, run in groupby(doc, _is_of_a_run) if wanted]
        for doc in tagger().pipe(captions, batch_size=256)
    ]


def _is_of_a_run(token: Token) -> bool:
    return token.pos_ in _WORDS_OF_RUNS
