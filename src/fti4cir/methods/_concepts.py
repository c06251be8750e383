"""The concepts of SEARLE: what things are called, and sentences about them that keep a pseudo-word near to real ones.

They are the class names of Open Images, as published, or the subjects of the training captions, which is quick.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder
from ..captions.split import SplitCaption
from ..inversion.compose import encode_sentences
from ..inversion.network import PseudoWords
from ..inversion.prompts import Sentence, Slot, Template

TEMPLATE = Template(modification="that {text}")
CLASS_BLOCK = 64
"""Class names whose features are computed together."""
_VOCABULARY = Path(__file__).parent.parent / "concepts" / "open-images-v7.txt"
_MOST_CONCEPTS = 2000
_MOST_ATTRIBUTES = 20
_MOST_CAPTIONS = 32
"""Captions that are kept of each class of Open Images."""
_AT_ONCE = 256
"""Sentences that pass the text tower together."""


class Phrase(NamedTuple):
    """A sentence about a concept."""

    pseudo: Sentence
    """With the pseudo-word in the concept's place."""
    real: Sentence


@dataclass(frozen=True)
class Concepts:
    """What things are called, and what is said of each."""

    names: tuple[str, ...]
    said: tuple[tuple[str, ...], ...]
    """For each name, at least one text."""
    features: Tensor
    """(names, D) unit-length text features."""
    phrase: Callable[[str, str], Phrase]
    """A name and what is said of it, to a sentence."""

    @classmethod
    def of_captions(cls, encoder: DualEncoder, attributes: Mapping[str, Sequence[str]]) -> Concepts:
        """Subjects of captions with the attributes that they have there."""
        names = tuple(attributes)
        texts = [(f"{TEMPLATE.opening} {name}",) for name in names]
        features = F.normalize(_encode(encoder, texts), dim=-1)
        return cls(names, tuple(tuple(attributes[name]) for name in names), features, _with_attribute)

    @classmethod
    def of_open_images(cls, features: Tensor, captions: Mapping[str, Sequence[str]]) -> Concepts:
        """The class names of Open Images, with captions that hold them; where none does, `a photo of {name}`.

        `features` are those of `class_features`, of all names.
        """
        names = class_names()
        said = tuple(tuple(captions.get(name, ())) or (f"{TEMPLATE.opening} {name}",) for name in names)
        return cls(names, said, features, _replaced)

    def nearest(self, image: Tensor, count: int) -> list[list[int]]:
        """For each image (B, D) the places of the concepts that are nearest to it, best first."""
        similar = F.normalize(image, dim=-1) @ self.features.to(image.device).T
        places: list[list[int]] = similar.topk(min(count, len(self.names))).indices.tolist()
        return places

    def draw(self, nearest: Sequence[Sequence[int]], generators: Sequence[random.Random]) -> list[Phrase]:
        """For each image, by a generator of its own, a sentence about one of its nearest concepts."""
        drawn = []
        for places, random_ in zip(nearest, generators, strict=True):
            place = random_.choice(places)
            drawn.append(self.phrase(self.names[place], random_.choice(self.said[place])))
        return drawn


def _with_attribute(subject: str, attribute: str) -> Phrase:
    return Phrase(TEMPLATE.pseudo_subject(attribute), (TEMPLATE.real(subject, attribute),))


def _replaced(name: str, text: str) -> Phrase:
    """The text, and the same with the pseudo-word for the first place where it holds the name."""
    found = _whole(name).search(text)
    if found is None:
        raise ValueError(f"{text!r} does not hold {name!r}")
    pieces = (text[: found.start()].strip(), Slot.SUBJECT, text[found.end() :].strip())
    return Phrase(tuple(piece for piece in pieces if piece), (text,))


@cache
def _whole(name: str) -> re.Pattern[str]:
    """What finds a name that is no part of a longer word."""
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)


def collect(captions: Sequence[Sequence[SplitCaption]]) -> dict[str, list[str]]:
    """The most frequent subjects of captions, each with some of the attributes that it has there."""
    counts = Counter(caption.subject for group in captions for caption in group)
    kept = [subject for subject, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_CONCEPTS]]
    attributes: dict[str, dict[str, None]] = {subject: {} for subject in kept}
    for group in captions:
        for caption in group:
            seen = attributes.get(caption.subject)
            if seen is not None and len(seen) < _MOST_ATTRIBUTES:
                seen[caption.attribute] = None
    return {subject: list(seen) for subject, seen in attributes.items()}


@cache
def class_names() -> tuple[str, ...]:
    """The class names of Open Images V7, of Google LLC under CC BY 4.0."""
    return tuple(_VOCABULARY.read_text(encoding="utf-8").splitlines())


def captions_of_classes(captions: Iterable[str]) -> dict[str, list[str]]:
    """The class names of Open Images that captions hold as whole words, each with the first captions that do."""
    by_words: dict[tuple[str, ...], list[str]] = {}
    for name in class_names():
        by_words.setdefault(_words(name), []).append(name)
    by_words.pop((), None)
    lengths = sorted({len(words) for words in by_words})
    found: dict[str, dict[str, None]] = {}
    for caption in captions:
        words = _words(caption)
        runs = {words[start : start + length] for length in lengths for start in range(len(words) - length + 1)}
        for name in (name for run in runs for name in by_words.get(run, ())):
            kept = found.setdefault(name, {})
            if len(kept) < _MOST_CAPTIONS and _whole(name).search(caption):
                kept[caption] = None
    return {name: list(found[name]) for name in class_names() if found.get(name)}


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def templates() -> list[Sentence]:
    """The 24 sentences with one pseudo-word of PALAVRA (Cohen et al., 2022), which SEARLE uses, as they spell them."""
    kinds = ("photo", "illustration", "sketch", "diagram")
    texts: list[str] = []
    for kind in kinds:
        article, noun = ("An", "illustrations") if kind == "illustration" else ("A", kind)
        of_what = "an" if kind == "illustration" else "a"
        texts += [f"This is {of_what} {kind} of a {{}}", f"This {kind} contains a {{}}", f"{article} {noun} of a {{}}"]
    texts += ["A {}", "We see a {}", "{}"]
    shown = ("photo", "image", "illustration")
    texts += [f"We see a {{}} in this {kind}" for kind in shown]
    texts += [f"We see a {{}} {kind}" for kind in shown]
    texts += [f"{{}} {kind}" for kind in shown]
    return [_slotted(text) for text in texts]


def _slotted(text: str) -> Sentence:
    before, after = (part.strip() for part in text.split("{}"))
    return tuple(piece for piece in (before, Slot.SUBJECT, after) if piece)


def class_features(encoder: DualEncoder, start: int, stop: int) -> Tensor:
    """Unit-length features (stop - start, D) of class names: the mean of those of all templates with the name."""
    sentences: list[Sentence] = [
        (" ".join(name if isinstance(piece, Slot) else piece for piece in template),)
        for name in class_names()[start:stop]
        for template in templates()
    ]
    features = F.normalize(_encode(encoder, sentences), dim=-1).unflatten(0, (-1, len(templates())))
    return F.normalize(features.mean(dim=1), dim=-1)


@torch.no_grad()
def _encode(encoder: DualEncoder, sentences: Sequence[Sentence]) -> Tensor:
    """Features (S, D) of sentences without pseudo-words, in blocks."""
    blocks = range(0, len(sentences), _AT_ONCE)
    return torch.cat([encode_sentences(encoder, sentences[start : start + _AT_ONCE]) for start in blocks])


def pseudo_and_real(encoder: DualEncoder, words: PseudoWords, phrases: Sequence[Phrase]) -> tuple[Tensor, Tensor]:
    """Features (B, D) of sentences with the pseudo-word in them, and of the same with real words, without gradient."""
    pseudo = encode_sentences(encoder, [phrase.pseudo for phrase in phrases], words)
    with torch.no_grad():
        real = encode_sentences(encoder, [phrase.real for phrase in phrases])
    return pseudo, real
