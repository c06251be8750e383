"""FTI4CIR: an image's subject and its attributes become pseudo-words, which a sentence joins with the text.

Lin, Wen, Song, Liu, Hu, Nie, "Fine-grained Textual Inversion Network for Zero-Shot Composed Image Retrieval", SIGIR
2024.
What all methods by textual inversion share is here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion
from ..inversion.prompts import Sentence
from ..models.queries import Queries
from ..training import losses
from ..training.config import TrainingConfig
from ..training.losses import LossWeights
from ..training.objective import Batch, Corpus, noised
from .base import Entry, Learner, Model


class Inversion:
    """An image's pseudo-words in one sentence with the modification, by a network trained as `name`.

    Raises:
        ModelError: if the model has no inversion weights, or those of another method.
    """

    def __init__(self, name: str, model: Model) -> None:
        self.name = name
        model.require_inversion()  # now, not after the first thousand images
        if model.method != name:
            raise ModelError(
                f"{model.name} has weights of {model.method}, none of {name}; train them with `fti4cir train --method "
                f"{name} --backbone {model.encoder.name} --images FOLDER --captions FILE --output DIR` and give "
                "--model DIR."
            )
        self._model = model

    def compose(self, queries: Queries) -> Tensor:
        """B queries to unit-length features (B, D)."""
        return self._model.compose_features(queries, allow_blank=True)


class InversionObjective:
    """The losses of FTI4CIR, section 3.3, and our composed ones.

    All sentences that hold pseudo-words pass the text tower together, each at its real length.
    """

    extra: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: TrainingConfig, corpus: Corpus) -> None:
        self._config, self._encoder = config, corpus.encoder
        self._temperature = 1 / corpus.encoder.logit_scale if config.temperature is None else config.temperature

    def outputs(self, network: FineGrainedInversion, batch: Batch) -> dict[str, Tensor]:
        """Features (B, D) of each kind of sentence, and what the orthogonality needs."""
        config, weights = self._config, self._config.weights
        template = network.config.template
        assert batch.local is not None
        words = network(noised(batch.image, config.noise) if config.noise else batch.image, batch.local)
        if config.attribute_masking and words.attributes.shape[1]:
            words = words.without_some(config.attribute_masking)
        count = len(batch.rows)
        sentences: dict[str, list[Sentence]] = {"whole": [network.config.sentence()] * count}
        if weights.regularization_subject:
            sentences["subject"] = [template.pseudo_subject(caption.attribute) for caption in batch.captions]
        if weights.regularization_attributes and config.max_attributes:
            sentences["attributes"] = [template.pseudo_attributes(caption.subject) for caption in batch.captions]
        if batch.edited:
            sentences["composed"] = [network.config.sentence(text) for text in batch.modifications]
        together = [sentence for group in sentences.values() for sentence in group]
        owner = torch.arange(count).repeat(len(sentences))
        encoded = encode_sentences(self._encoder, together, words, owner)
        result = dict(zip(sentences, encoded.split(count), strict=True))
        if batch.edited:
            with torch.no_grad():
                result["edited"] = encode_sentences(self._encoder, [(text,) for text in batch.edited])
        return {**result, "selected": words.selected.float(), "count": words.counts.float()}

    def terms(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses by name."""
        config, weights = self._config, self._config.weights
        terms: dict[str, Tensor] = {}
        if weights.contrastive:
            contrast = losses.contrastive if config.contrast == "all" else losses.contrastive_across
            terms["contrastive"] = contrast(batch.image, outputs["whole"], self._temperature)
        if weights.orthogonality and config.max_attributes:
            terms["orthogonality"] = losses.orthogonality(outputs["selected"])
        for name in ("subject", "attributes", "whole"):
            if getattr(weights, f"regularization_{name}") and name in outputs:
                terms[f"regularization_{name}"] = losses.regularization(outputs[name], batch.real)
        temperature = config.composed_temperature
        if weights.composed and batch.choice is not None:
            query, choice = outputs["composed"], batch.choice
            terms["composed"] = losses.composed(query, outputs["edited"], choice.others, choice.same, temperature)
        if weights.composed_image and batch.found is not None:
            query, choice = outputs["composed"][batch.found.places], batch.found.choice
            terms["composed_image"] = losses.composed(query, batch.found.image, choice.others, choice.same, temperature)
        if weights.description and batch.described is not None:
            own, choice = batch.described.captions, batch.described.choice
            terms["description"] = losses.composed(outputs["whole"], own, choice.others, choice.same, temperature)
        return terms


_PAPER = TrainingConfig(caption_split="release")
_COMPOSED = TrainingConfig(
    epochs=5, batch_size=32, learning_rate=1e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0, average=0.998,
    # The orthogonality of vectors without negative numbers is reached soonest by constant ones: with the paper's
    # weights the attributes of `mini` lost all that differs between images.
    weights=LossWeights(
        contrastive=0.3, orthogonality=0.1, regularization_attributes=5.0,
        composed=2.0, composed_image=2.0, description=2.0,
    ),
    # Small batches make many steps; what the composed losses lack in negatives, the whole set lends them.
    attribute_gain=6.0, dropout=0.1, negatives=1024, bfloat16=True,
)  # fmt: skip


def _without(config: TrainingConfig) -> dict[str, TrainingConfig]:
    """The paper's ablations of a recipe: each takes one part away."""

    def weightless(name: str) -> TrainingConfig:
        return replace(config, weights=replace(config.weights, **{name: 0.0}))

    return {
        "no-attributes": replace(config, max_attributes=0),
        "no-selection": replace(config, threshold=None),
        "no-orthogonality": weightless("orthogonality"),
        "no-subject-regularization": weightless("regularization_subject"),
        "no-attributes-regularization": weightless("regularization_attributes"),
        "no-whole-regularization": weightless("regularization_whole"),
    }


FTI4CIR = Learner(
    presets={
        "paper": _PAPER,
        "composed": _COMPOSED,
        **{f"paper-{name}": config for name, config in _without(_PAPER).items()},
        **{f"composed-{name}": config for name, config in _without(_COMPOSED).items()},
    },
    default="composed",
    objective=InversionObjective,
)
"""`paper`: the release's recipe. `composed`: ours, with composed and description losses, for small encoders and few
images. Each also with one part taken away, as `paper-no-selection`."""

METHOD = Entry(create=lambda model, options: Inversion("fti4cir", model), learner=FTI4CIR)
