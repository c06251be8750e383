"""Sentences with slots for pseudo-words.

A sentence is a tuple of pieces: text, or a `Slot`. Text never marks a slot, so whatever a user types,
a `*` included, is only text.
"""

from __future__ import annotations

from enum import Enum

from ..errors import InputError


class Slot(Enum):
    """A place in a sentence that pseudo-words fill."""

    SUBJECT = "subject"
    """One word."""
    ATTRIBUTES = "attributes"
    """As many words as the picture has attributes, maybe none."""


Sentence = tuple[str | Slot, ...]


def whole(modification: str | None = None) -> Sentence:
    """`a photo of [s] with [a_1] ... [a_n]`, and ` but {modification}` where there is one."""
    sentence: Sentence = ("a photo of", Slot.SUBJECT, "with", Slot.ATTRIBUTES)
    return sentence if modification is None else (*sentence, f"but {check_text(modification)}")


def subject_only(modification: str | None = None) -> Sentence:
    """`a photo of [s]`, and ` but {modification}`: the sentence of a method with a single word."""
    sentence: Sentence = ("a photo of", Slot.SUBJECT)
    return sentence if modification is None else (*sentence, f"but {check_text(modification)}")


def pseudo_subject(attribute: str) -> Sentence:
    """`a photo of [s] with {attribute}`."""
    return ("a photo of", Slot.SUBJECT, f"with {attribute}")


def pseudo_attributes(subject: str) -> Sentence:
    """`a photo of {subject} with [a_1] ... [a_n]`."""
    return (f"a photo of {subject} with", Slot.ATTRIBUTES)


def real(subject: str, attribute: str) -> Sentence:
    """`a photo of {subject} with {attribute}`, all words real."""
    return (f"a photo of {subject} with {attribute}",)


def check_text(text: str) -> str:
    """The text without white space around it; InputError if nothing is left."""
    stripped = text.strip()
    if not stripped:
        raise InputError("The text is empty: say in a few words what should be different, such as 'in red'.")
    return stripped
