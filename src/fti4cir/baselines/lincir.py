"""LinCIR: one pseudo-word a picture, learned from sentences alone.

Gu, Chun, Kim, Kang, Yun, "Language-only Training of Zero-shot Composed Image Retrieval", CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .. import losses
from ..captions.keywords import keywords
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion
from ..inversion.prompts import Sentence, Slot, Template
from ..losses import LossWeights
from ..recipe import TrainingConfig
from .base import Batch, Corpus, Learner, noised


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


class LinCirObjective:
    """Self-masking projection: the sentence whose keywords are replaced by the word that the network makes of the
    whole sentence's feature shall have that feature.

    The network sees the text feature with noise and at the length of the picture's own, since it will see picture
    features later; of the pictures it uses nothing else.
    """

    extra: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: TrainingConfig, corpus: Corpus) -> None:
        self._encoder = corpus.encoder

    def outputs(self, network: FineGrainedInversion, batch: Batch) -> dict[str, Tensor]:
        """The features of the masked captions, and of the captions, (B, D) each."""
        texts = [str(caption) for caption in batch.captions]
        with torch.no_grad():
            whole = encode_sentences(self._encoder, [(text,) for text in texts])
        length = batch.image.norm(dim=-1, keepdim=True)
        scaled = whole * (length / whole.norm(dim=-1, keepdim=True))
        # Noise of a random amount for each sentence reaches from the texts' region to the pictures'.
        amount = torch.rand(len(texts), 1, device=scaled.device)
        words = network(noised(scaled, amount), batch.image.new_zeros(len(texts), 0, 0))
        sentences = [masked(text, spans) for text, spans in zip(texts, keywords(texts), strict=True)]
        return {"masked": encode_sentences(self._encoder, sentences, words), "text": whole}

    def terms(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The distance between the two, as one minus their cosine."""
        return {"masked": losses.regularization(outputs["masked"], outputs["text"])}


LINCIR = Learner(
    TrainingConfig(
        method="lincir",
        epochs=5,
        batch_size=128,
        learning_rate=1e-4,
        schedule="constant",
        weights=LossWeights(0.0, 0.0, 0.0, 0.0, 0.0, masked=1.0),
        max_attributes=0,
        dropout=0.5,
        template=Template(modification="that {text}"),
        bfloat16=True,
    ),
    LinCirObjective,
)
