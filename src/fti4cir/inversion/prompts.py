"""Sentences with slots for pseudo-words.

A sentence is a tuple of pieces: text, or a `Slot`. Text never marks a slot, so everything that a user types,
even a `*`, is only text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import InputError, ModelError


class Slot(Enum):
    """A place in a sentence that pseudo-words fill."""

    SUBJECT = "subject"
    """One word."""
    ATTRIBUTES = "attributes"
    """One word for each attribute of the image; there may be none."""


class Framed(str):
    """Text between words of a template. If the sentence is too long, this text is cut, and the words around it stay."""

    before: str
    text: str
    after: str

    def __new__(cls, before: str, text: str, after: str = "") -> Framed:
        """The three parts as one string. The parts include the white space between them."""
        framed = super().__new__(cls, before + text + after)
        framed.before, framed.text, framed.after = before, text, after
        return framed


Sentence = tuple[str | Slot, ...]


@dataclass(frozen=True)
class Template:
    """The real words of a sentence around its pseudo-words; the defaults are the paper's."""

    opening: str = "a photo of"
    """The words before the subject."""
    attributes: str = "with"
    """The words between the subject and the attributes."""
    modification: str = "but {text}"
    """The words of the modification; `{text}` is its place."""

    def __post_init__(self) -> None:
        if self.modification.count("{text}") != 1:
            raise ModelError(f"The template's modification must hold {{text}} once, but is {self.modification!r}.")

    def pseudo(self, modification: str | None = None, with_attributes: bool = True) -> Sentence:
        """`a photo of [s] with [a_1] ... [a_n]`, followed by ` but {modification}` if there is one.

        Without attributes it is `a photo of [s]`, the sentence of a method with a single word. Benchmarks have blank
        modifications; these keep the template's own words: `a photo of [s] with [a_1] ... [a_n] but`. The text of a
        user is checked before, by `check_text`.
        """
        sentence: Sentence = (self.opening, Slot.SUBJECT)
        if with_attributes:
            sentence = (*sentence, self.attributes, Slot.ATTRIBUTES)
        if modification is None:
            return sentence
        before, after = self.modification.split("{text}")
        if said := modification.strip():
            return (*sentence, Framed(before, said, after))
        frame = (before + after).strip()
        return (*sentence, frame) if frame else sentence

    def pseudo_subject(self, attribute: str) -> Sentence:
        """`a photo of [s] with {attribute}`."""
        return (self.opening, Slot.SUBJECT, Framed(f"{self.attributes} ", attribute))

    def pseudo_attributes(self, subject: str) -> Sentence:
        """`a photo of {subject} with [a_1] ... [a_n]`."""
        return (Framed(f"{self.opening} ", subject, f" {self.attributes}"), Slot.ATTRIBUTES)

    def real(self, subject: str, attribute: str) -> str:
        """`a photo of {subject} with {attribute}`, all words real."""
        return f"{self.opening} {subject} {self.attributes} {attribute}"


def check_text(text: str, allow_blank: bool = False) -> str:
    """The text without white space around it.

    Raises:
        InputError: if it is not a string, or if it is blank and `allow_blank` is false.
    """
    if not isinstance(text, str):
        raise InputError(f"A text is a string, not {type(text).__name__}.")
    stripped = text.strip()
    if not stripped and not allow_blank:
        raise InputError("The text is empty: say in a few words what should be different, such as 'in red'.")
    return stripped
