"""Real words that the text tower reads most like an image's pseudo-words."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder
from ..files import replacing, user_cache
from ..inversion.compose import encode_sentences
from ..inversion.network import PseudoWords
from ..inversion.prompts import Sentence, Slot

NEAREST = 5
"""How many real words describe each pseudo-word."""
_MOST_WORDS = 4000
"""How many of the vocabulary's words are compared with a pseudo-word."""
_SHORTEST_WORD = 3
_FUNCTION_WORDS = """
about after again against all along already also although always among and another any are aren around because
been before being between both but can cannot could couldn despite did didn does doesn doing don done during
each either else etc even ever every few for from had hadn has hasn have haven having her here hers herself him
himself his how however instead into isn its itself just least less many may maybe might mine more most much
must myself neither never none nor not nothing now off often once one ones only onto other others our ours out
over own perhaps quite rather really same shall she should shouldn since some someone something soon still such
than that the their theirs them themselves then there therefore these they this those though through throughout
thus till too toward towards under unless until upon use used very via was wasn well were weren what whatever
when whenever where whereas wherever whether which while who whom whose why will with within without won would
wouldn yet you your yours yourself
"""
"""Words that describe nothing. No pseudo-word is compared with them."""
_BATCH = 256
_SUBJECT_TEXT = "a photo of"
_ATTRIBUTE_TEXT = "a photo with"


@dataclass(frozen=True)
class NearWord:
    """A real word, and how similar the text tower finds it to a pseudo-word.

    The similarity is the cosine of the features of two sentences: one with the real word, one with the pseudo-word in
    its place. The mean feature of all real words' sentences is subtracted from both.
    """

    word: str
    similarity: float


@dataclass(frozen=True)
class _RealWords:
    """The real words that pseudo-words are compared with, and the features of their sentences, on the CPU."""

    words: list[str]
    subject: Tensor
    """(words, D) float16, of `a photo of {word}`."""
    attribute: Tensor
    """(words, D) float16, of `a photo with {word}`."""


_WORDS: weakref.WeakKeyDictionary[DualEncoder, _RealWords] = weakref.WeakKeyDictionary()
"""The result of `_real_words` for each encoder."""


def nearest_words(encoder: DualEncoder, pseudo: PseudoWords) -> tuple[tuple[NearWord, ...], list[tuple[NearWord, ...]]]:
    """The real words nearest to one image's subject word, and those nearest to each of its n attribute words."""
    real = _real_words(encoder)
    count = int(pseudo.counts[0])
    subject = encode_sentences(encoder, [(_SUBJECT_TEXT, Slot.SUBJECT)], pseudo)  # (1, D)
    nearest_subject = _nearest(subject, real.subject, real.words)[0]
    if not count:
        return nearest_subject, []
    # Each attribute stands in a sentence of its own, as if it were the only one of an image.
    single = replace(
        pseudo,
        subject=pseudo.subject.expand(count, -1),
        attributes=pseudo.attributes[0, :count, None],
        counts=torch.ones(count, dtype=pseudo.counts.dtype),
    )
    attributes = encode_sentences(encoder, [(_ATTRIBUTE_TEXT, Slot.ATTRIBUTES)] * count, single)  # (n, D)
    return nearest_subject, _nearest(attributes, real.attribute, real.words)


def _nearest(pseudo: Tensor, real: Tensor, words: list[str]) -> list[tuple[NearWord, ...]]:
    """For each of N sentences (N, D), the words whose sentences (words, D) have the highest centred cosine."""
    if not words:
        return [()] * len(pseudo)
    real = real.float()
    mean = real.mean(dim=0)
    cosines = F.normalize(pseudo.cpu() - mean, dim=-1) @ F.normalize(real - mean, dim=-1).T  # (N, words)
    best = cosines.topk(min(NEAREST, len(words)), dim=-1)
    return [
        tuple(NearWord(words[place], value) for place, value in zip(places, values, strict=True))
        for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _real_words(encoder: DualEncoder) -> _RealWords:
    """An encoder's real words: from this process, else from the user's cache, else encoded and stored in both.

    Encoding takes some seconds.
    """
    if encoder not in _WORDS:
        words = _common_words(encoder)
        path = _cache_file(encoder)
        real = _read_words(path, words, encoder.joint_width)
        if real is None:
            real = _RealWords(words, *(_encode(encoder, words, text) for text in (_SUBJECT_TEXT, _ATTRIBUTE_TEXT)))
            _write_words(path, real)
        _WORDS[encoder] = real
    return _WORDS[encoder]


def _common_words(encoder: DualEncoder) -> list[str]:
    """The vocabulary's first whole words that describe something; vocabularies are ordered by frequency.

    Only ASCII: a byte-level vocabulary spells other text, such as emoji, with unrelated letters.
    """
    function_words = set(_FUNCTION_WORDS.split())
    found = (encoder.word_of(token) for token in range(len(encoder.token_table())))
    descriptive = (
        word
        for word in found
        if word is not None and word.isascii() and len(word) >= _SHORTEST_WORD and word not in function_words
    )
    return list(islice(descriptive, _MOST_WORDS))


def _encode(encoder: DualEncoder, words: list[str], text: str) -> Tensor:
    """The features of the text followed by each word: (words, D) float16, on the CPU."""
    sentences: list[Sentence] = [(f"{text} {word}",) for word in words]
    fast = encoder.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    features = torch.empty(len(words), encoder.joint_width, dtype=torch.float16)
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        for start in range(0, len(words), _BATCH):
            features[start : start + _BATCH] = encode_sentences(encoder, sentences[start : start + _BATCH])
    return features


def _cache_file(encoder: DualEncoder) -> Path | None:
    """The file in the user's cache that keeps an encoder's real words; None for a user without a home folder."""
    try:
        return user_cache() / "words" / f"{encoder.fingerprint}.safetensors"
    except RuntimeError:
        return None


def _read_words(path: Path | None, words: list[str], width: int) -> _RealWords | None:
    """The content of the file; None if it is missing, damaged or made from other words."""
    if path is None:
        return None
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            subject, attribute = file.get_tensor("subject"), file.get_tensor("attribute")
    except (OSError, SafetensorError):
        return None
    fits = about.get("words") == " ".join(words) and subject.shape == attribute.shape == (len(words), width)
    return _RealWords(words, subject, attribute) if fits else None


def _write_words(path: Path | None, real: _RealWords) -> None:
    """Write the file. A failure is ignored, because the file only saves time."""
    if path is None:
        return
    data = serialize({"subject": real.subject, "attribute": real.attribute}, {"words": " ".join(real.words)})
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(data)
