"""SEARLE: one pseudo-word a picture, found by optimisation, and a network that learns to find it at once.

Baldrati, Agnolucci, Bertini, Del Bimbo, "Zero-Shot Composed Image Retrieval with Textual Inversion", ICCV 2023.
There a language model writes the sentences that keep a pseudo-word near to real ones; here the captions of the
training set take its place.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import losses
from ..backbones.base import DualEncoder, VisionFeatures, image_fingerprint
from ..captions.split import SplitCaption
from ..errors import ModelError
from ..features import compute_rows
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion, PseudoWords
from ..inversion.prompts import Template
from ..losses import LossWeights
from ..recipe import TrainingConfig
from .base import Batch, Corpus, Learner, Model

_TEMPLATE = Template(modification="that {text}")
_MOST_CONCEPTS = 2000
_MOST_ATTRIBUTES = 20
_NEAREST = 5
_BLOCK = 128
_INVERSION_RATE = 2e-2
_INVERSION_REGULARIZATION = 0.5
_DISTILLATION_TEMPERATURE = 0.25


@dataclass(frozen=True)
class Concepts:
    """What things are called in captions, and what is said of each."""

    phrases: tuple[str, ...]
    attributes: tuple[tuple[str, ...], ...]
    """For each phrase."""
    features: Tensor
    """(phrases, D) unit-length text features."""

    @classmethod
    def of(cls, encoder: DualEncoder, attributes: dict[str, list[str]]) -> Concepts:
        """The concepts with these phrases and attributes."""
        phrases = tuple(attributes)
        texts = [(f"{_TEMPLATE.opening} {phrase}",) for phrase in phrases]
        with torch.no_grad():
            blocks = [encode_sentences(encoder, texts[start : start + 256]) for start in range(0, len(texts), 256)]
        features = F.normalize(torch.cat(blocks), dim=-1)
        return cls(phrases, tuple(tuple(attributes[phrase]) for phrase in phrases), features)

    def draw(self, image: Tensor, seeds: Sequence[int]) -> list[SplitCaption]:
        """For each picture (B, D), by a seed of its own, a caption of one of the concepts that are nearest to it."""
        nearest = (F.normalize(image, dim=-1) @ self.features.T).topk(min(_NEAREST, len(self.phrases))).indices
        drawn = []
        for row, seed in zip(nearest.tolist(), seeds, strict=True):
            random_ = random.Random(seed)
            place = random_.choice(row)
            drawn.append(SplitCaption(self.phrases[place], random_.choice(self.attributes[place])))
        return drawn


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


def _pseudo_and_real(
    encoder: DualEncoder, words: PseudoWords, captions: Sequence[SplitCaption]
) -> tuple[Tensor, Tensor]:
    """Features (B, D) of captions with the pseudo-word as their subject, and of those captions, without gradient."""
    pseudo = encode_sentences(encoder, [_TEMPLATE.pseudo_subject(caption.attribute) for caption in captions], words)
    with torch.no_grad():
        real = encode_sentences(encoder, [(_TEMPLATE.real(*caption),) for caption in captions])
    return pseudo, real


def invert(encoder: DualEncoder, image: Tensor, concepts: Concepts, steps: int) -> Tensor:
    """Optimisation-based textual inversion: the word of each picture in whose sentence the text tower sees it.

    A picture's word depends on the picture alone, not on the others beside it.

    Args:
        encoder: the frozen dual encoder.
        image: (B, D) image features.
        concepts: what keeps the words near to real ones.
        steps: of the optimisation.

    Returns:
        (B, W) token embeddings.

    """
    # Evaluation composes in inference mode, in which nothing can be optimised, not even by leave of `enable_grad`.
    with torch.inference_mode(False), torch.enable_grad():
        image = image.clone()  # else one that was made in inference mode
        # From the middle of all words, which is as near to one as to another; float32 whatever the tower is in.
        middle = encoder.token_table().float().mean(dim=0).detach()
        tokens = middle.to(image.device).expand(len(image), -1).clone().requires_grad_()
        optimizer = torch.optim.AdamW([tokens], lr=_INVERSION_RATE, weight_decay=0.01)
        sentence = _TEMPLATE.pseudo(with_attributes=False)
        for step in range(steps):
            words = PseudoWords.of_subjects(tokens)
            seen = encode_sentences(encoder, [sentence] * len(image), words)
            pseudo, real = _pseudo_and_real(encoder, words, concepts.draw(image, [step] * len(image)))
            loss = losses.regularization(seen, image)
            loss = loss + _INVERSION_REGULARIZATION * losses.regularization(pseudo, real)
            optimizer.zero_grad()
            # Of the mean over the batch, so that a picture's word does not depend on how many others there are.
            (loss * len(image)).backward()
            optimizer.step()
    return tokens.detach()


class OptimizedInversion:
    """SEARLE-OTI: the optimisation itself for each reference, slow and without a network.

    Raises:
        ModelError: if the model was not trained as `searle`, whose concepts this needs.
    """

    name = "searle-oti"

    def __init__(self, model: Model, steps: int = TrainingConfig.inversion_steps) -> None:
        concepts = model.extra.get("concepts")
        if not isinstance(concepts, dict):
            raise ModelError(
                f"{model.name} holds no concepts for searle-oti; train them with `fti4cir train --method searle "
                f"--backbone {model.encoder.name} --images FOLDER --captions FILE --output DIR` and give --model DIR."
            )
        self._encoder, self._steps = model.encoder, steps
        self._concepts = Concepts.of(model.encoder, concepts)

    def compose(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        pictures: Sequence[Path] = (),
    ) -> Tensor:
        """Features of R pictures and B modifications, each of the picture `owner` says, to (B, D)."""
        image = features.image.to(self._encoder.device)
        tokens = invert(self._encoder, image, self._concepts, self._steps)
        rows = torch.arange(len(texts)) if owner is None else torch.tensor(list(owner))
        sentences = [_TEMPLATE.pseudo(text, with_attributes=False) for text in texts]
        with torch.no_grad():
            return F.normalize(
                encode_sentences(self._encoder, sentences, PseudoWords.of_subjects(tokens), rows), dim=-1
            ).cpu()


class SearleObjective:
    """Distillation of the optimised words into the network, each told from those of the other pictures."""

    def __init__(self, config: TrainingConfig, corpus: Corpus) -> None:
        self._encoder = corpus.encoder
        rows = list(corpus.rows)
        attributes = collect([corpus.captions[row] for row in rows])
        self.extra: Mapping[str, Any] = {"concepts": attributes}
        self._concepts = Concepts.of(corpus.encoder, attributes)

        def make(start: int, stop: int) -> Tensor:
            image = torch.from_numpy(corpus.image[rows[start:stop]]).to(corpus.encoder.device)
            return invert(corpus.encoder, image, self._concepts, config.inversion_steps)

        made_of = [image_fingerprint(corpus.encoder), rows, attributes, config.inversion_steps]
        shape = (len(rows), corpus.encoder.token_width)
        self._tokens = compute_rows(corpus.cache, "inverted", made_of, shape, _BLOCK, make, corpus.say)
        self._place = {row: place for place, row in enumerate(rows)}

    def outputs(self, network: FineGrainedInversion, batch: Batch) -> dict[str, Tensor]:
        """The network's words (B, W), and features (B, D) of a caption with each and of the same caption."""
        words = network(batch.image, batch.image.new_zeros(len(batch.rows), 0, 0))
        # From PyTorch's random numbers, as the dropout: the trainer has set them for this step.
        captions = self._concepts.draw(batch.image, torch.randint(2**31, (len(batch.rows),)).tolist())
        pseudo, real = _pseudo_and_real(self._encoder, words, captions)
        return {"token": words.subject.float(), "subject": pseudo, "real": real}

    def terms(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The contrastive distillation, and the regularisation towards real captions."""
        tokens = torch.from_numpy(self._tokens[[self._place[row] for row in batch.rows]]).to(batch.image.device)
        return {
            "distillation": losses.contrastive(tokens, outputs["token"], _DISTILLATION_TEMPERATURE),
            "regularization_subject": losses.regularization(outputs["subject"], outputs["real"]),
        }


SEARLE = Learner(
    TrainingConfig(
        method="searle",
        epochs=5,
        batch_size=128,
        learning_rate=1e-4,
        schedule="constant",
        weights=LossWeights(0.0, 0.0, 0.75, 0.0, 0.0, distillation=1.0),
        max_attributes=0,
        dropout=0.5,
        template=_TEMPLATE,
        bfloat16=True,
        inversion_steps=20,
    ),
    SearleObjective,
)
