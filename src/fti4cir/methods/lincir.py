"""LinCIR: one pseudo-word an image, learned from sentences alone.

Gu, Chun, Kim, Kang, Yun, "Language-only Training of Zero-shot Composed Image Retrieval", CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from ..captions.keywords import keyword_runs, keywords
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion, NetworkConfig
from ..inversion.prompts import Sentence, Slot, Template
from ..training import losses
from ..training.config import Options, TrainingConfig, require_choices
from ..training.losses import LossWeights
from ..training.objective import Batch, Corpus, Needs, noised
from .base import Entry, Learner
from .fti4cir import Inversion

_TEMPLATE = Template(modification="that {text}")
_MARK = "$"
"""Stands for the pseudo-word while keywords are replaced; captions are cleaned of it first."""


def masked(caption: str, spans: list[tuple[int, int]]) -> Sentence:
    """The caption with the subject's slot in the place of each span.

    >>> masked("a dog on grass", [(2, 5), (9, 14)])
    ('a', <Slot.SUBJECT: 'subject'>, 'on', <Slot.SUBJECT: 'subject'>)
    """
    pieces: list[str | Slot] = []
    end = 0
    for start, stop in spans:
        pieces += [caption[end:start].strip(), Slot.SUBJECT]
        end = stop
    return tuple(piece for piece in (*pieces, caption[end:].strip()) if piece)


def masked_runs(caption: str, runs: Sequence[str], draw: Callable[[int], int]) -> Sentence:
    """The caption with the subject's slot in the place of its keywords, by LinCIR's published rule.

    Each keyword is replaced wherever its letters stand, inside longer words too. At the first one that the caption
    does not hold, and where there is none, a random word is replaced instead, and the rest stays. So a lone "a"
    takes the letter out of all words: the published results were made with such sentences as well.

    Args:
        caption: without the mark `$`.
        runs: keywords, as `keyword_runs` finds them.
        draw: gives a random number from 0 up to below its argument.

    >>> masked_runs("a dog on grass", ["a dog", "grass"], lambda count: 0)
    (<Slot.SUBJECT: 'subject'>, 'on', <Slot.SUBJECT: 'subject'>)
    """
    marked = caption
    for run in runs or [""]:
        if run and run in caption:
            marked = marked.replace(run, _MARK)
            continue
        words = caption.split()
        if words:
            marked = marked.replace(words[draw(len(words))], _MARK)
        break
    if _MARK not in marked:
        return _TEMPLATE.pseudo(with_attributes=False)
    pieces: list[str | Slot] = []
    for number, piece in enumerate(marked.split(_MARK)):
        pieces += [Slot.SUBJECT] * (number > 0) + [piece.strip()] * bool(piece.strip())
    return tuple(pieces)


def cleaned(caption: str) -> str:
    """A caption as LinCIR reads it: in small letters, without `$`, and a person for the mark of a person's name."""
    return caption.replace("<PERSON>", "person").lower().replace(_MARK, "").strip()


@dataclass(frozen=True, kw_only=True)
class LinCirWeights(LossWeights):
    """The weight of LinCIR's only loss."""

    masked: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LinCirOptions(Options):
    """The settings of `LinCirObjective`."""

    weights: LinCirWeights = field(default_factory=LinCirWeights)
    keywords: Literal["nouns", "runs"] = "nouns"
    """What the pseudo-word replaces in a caption. `nouns`: runs of nouns and the adjectives before them. `runs`: runs
    of nouns, adjectives and determiners, and a random word where there are none."""
    text_noise: Literal["relative", "unit"] = "relative"
    """`relative`: the network sees the text feature at the length of the image's, and noise of up to that length.
    `unit`: the raw text feature, and a random amount up to 1 of noise with variance 1 in each dimension."""
    masked_loss: Literal["cosine", "squared"] = "cosine"
    """One minus the cosine of the two features, or the mean squared difference of the two raw features."""

    def __post_init__(self) -> None:
        require_choices(
            self,
            {
                "keywords": ("nouns", "runs"),
                "text_noise": ("relative", "unit"),
                "masked_loss": ("cosine", "squared"),
            },
        )


class LinCirObjective:
    """Self-masking projection. The network makes a word of a sentence's feature; the sentence in which this word
    replaces the keywords should have the same feature.

    The network sees the text feature with noise, since it will see image features later. As published it is the
    raw feature, and images are not used at all; the quick recipe gives it the length of the image's own.
    """

    needs = Needs()
    extra: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: TrainingConfig, corpus: Corpus) -> None:
        self._options, self._encoder = config.options_as(LinCirOptions), corpus.encoder
        self.weights = self._options.weights

    def outputs(self, network: FineGrainedInversion, batch: Batch) -> dict[str, Tensor]:
        """The features of the masked captions, and of the captions, (B, D) each."""
        texts = [str(caption) for caption in batch.captions]
        if self._options.keywords == "runs":
            texts = list(map(cleaned, texts))
        with torch.no_grad():
            whole = encode_sentences(self._encoder, [(text,) for text in texts])
        words = network(self._with_noise(whole, batch.image), batch.image.new_zeros(len(texts), 0, 0))
        return {"masked": encode_sentences(self._encoder, self._masked(texts), words), "text": whole}

    def _with_noise(self, text: Tensor, image: Tensor) -> Tensor:
        """What the network sees of text features (B, D). Noise of a random amount for each sentence reaches from the
        texts' region to the images'."""
        if self._options.text_noise == "unit":
            return text + torch.rand(len(text), 1, device=text.device) * torch.randn_like(text)
        length = image.norm(dim=-1, keepdim=True)
        scaled = text * (length / text.norm(dim=-1, keepdim=True))
        return noised(scaled, torch.rand(len(text), 1, device=scaled.device))

    def _masked(self, texts: Sequence[str]) -> list[Sentence]:
        if self._options.keywords == "nouns":
            return [masked(text, spans) for text, spans in zip(texts, keywords(texts), strict=True)]
        return [masked_runs(text, runs, _draw) for text, runs in zip(texts, keyword_runs(texts), strict=True)]

    def terms(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The distance between the two."""
        distance = losses.squared_distance if self._options.masked_loss == "squared" else losses.regularization
        return {"masked": distance(outputs["masked"], outputs["text"])}


def _draw(count: int) -> int:
    """From PyTorch's random numbers, as the dropout: the trainer has set them for this step."""
    return int(torch.randint(count, ()))


LINCIR = Learner(
    presets={
        "lincir": TrainingConfig(
            method="lincir",
            steps=20_000,
            batch_size=512,
            learning_rate=1e-4,
            weight_decay=0.01,
            schedule="constant",
            bfloat16=True,
            network=NetworkConfig(max_attributes=0, dropout=0.5, template=_TEMPLATE),
            options=LinCirOptions(keywords="runs", text_noise="unit", masked_loss="squared"),
        ),
        "lincir-quick": TrainingConfig(
            method="lincir",
            epochs=5,
            batch_size=128,
            learning_rate=1e-4,
            schedule="constant",
            bfloat16=True,
            network=NetworkConfig(max_attributes=0, dropout=0.5, template=_TEMPLATE),
            options=LinCirOptions(),
        ),
    },
    default="lincir",
    objective=LinCirObjective,
)
"""`lincir`: as published. `lincir-quick`: ours, for small encoders and few images, which takes minutes. Figures that
are published with it hold only as long as it stays as it is."""

METHOD = Entry(create=lambda model, options: Inversion("lincir", model), learner=LINCIR)
