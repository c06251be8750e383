"""FTI4CIR: an image's subject and its attributes become pseudo-words, which a sentence joins with the text.

Lin, Wen, Song, Liu, Hu, Nie, "Fine-grained Textual Inversion Network for Zero-Shot Composed Image Retrieval", SIGIR
2024.
What all methods by textual inversion share is here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ModelError, TrainingError
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion, NetworkConfig
from ..inversion.prompts import Sentence
from ..models.queries import Queries
from ..training import losses
from ..training.config import (
    Options,
    TrainingConfig,
    require_above_zero,
    require_choices,
    require_not_negative,
    require_shares,
)
from ..training.losses import LossWeights
from ..training.objective import Batch, Corpus, Needs, noised
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


@dataclass(frozen=True, kw_only=True)
class InversionWeights(LossWeights):
    """The weights of the losses; the defaults are the release's."""

    contrastive: float = 1.0
    orthogonality: float = 1.0
    regularization_subject: float = 1.40
    regularization_attributes: float = 1.40
    regularization_whole: float = 1.40
    composed: float = 0.0
    """The composed loss against edited captions."""
    composed_image: float = 0.0
    """The composed loss against images that carry such a caption word for word. It only learns from captions that many
    images share, such as those written from a catalogue's table."""
    description: float = 0.0
    """The loss of `composed` for a sentence without a modification, against the image's own caption."""

    @classmethod
    def contrastive_only(cls) -> InversionWeights:
        """No other loss."""
        return cls(
            orthogonality=0.0, regularization_subject=0.0, regularization_attributes=0.0, regularization_whole=0.0
        )


@dataclass(frozen=True, kw_only=True)
class InversionOptions(Options):
    """The settings of `InversionObjective`."""

    weights: InversionWeights = field(default_factory=InversionWeights)
    contrast: Literal["all", "across"] = "all"
    """The negatives of the contrastive loss. `all`: the batch's other images and other sentences. `across`: for a
    sentence the other images, and for an image the other sentences, as CLIP does."""
    temperature: float | None = 0.20
    """Of the contrastive loss; None: what the encoder learned for its own (CLIP's logit scale)."""
    composed_temperature: float = 0.07
    """Of the composed losses and of the description loss."""
    attribute_masking: float = 0.0
    """Share of the attribute words that is left out of a training sentence at random."""
    noise: float = 0.0
    """Gaussian noise on the image features that the network sees, its length relative to theirs."""
    word_edits: float = 0.65
    """Share of the edited captions in which a word of a list (a colour, a kind, a place) is exchanged where there is
    one; in the others a whole part, for that of another caption, which needs no lists."""
    extra_negatives: int = 0
    """Images and captions of the whole set, drawn for each step, which are further negatives of the composed losses
    and the description loss. Their features are known already, so that thousands cost next to nothing."""

    def __post_init__(self) -> None:
        require_choices(self, {"contrast": ("all", "across")})
        require_above_zero(self, "temperature", "composed_temperature")
        require_shares(self, "attribute_masking")
        require_not_negative(self, "noise", "extra_negatives")
        if not 0 <= self.word_edits <= 1:
            raise TrainingError(f"word_edits is {self.word_edits}, but must lie in [0, 1].")


class InversionObjective:
    """The losses of FTI4CIR, section 3.3, and our composed ones.

    All sentences that hold pseudo-words pass the text tower together, each at its real length.
    """

    extra: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: TrainingConfig, corpus: Corpus) -> None:
        self._options, self._encoder = config.options_as(InversionOptions), corpus.encoder
        given = self._options.temperature
        self._temperature = 1 / corpus.encoder.logit_scale if given is None else given
        self.weights = weights = self._options.weights
        regularized = weights.regularization_subject, weights.regularization_attributes, weights.regularization_whole
        self.needs = Needs(
            local=config.network.max_attributes > 0,
            real=any(regularized),
            edits=bool(weights.composed or weights.composed_image),
            choice=bool(weights.composed),
            found=bool(weights.composed_image),
            described=bool(weights.description),
            word_edits=self._options.word_edits,
            extra_negatives=self._options.extra_negatives,
        )

    def outputs(self, network: FineGrainedInversion, batch: Batch) -> dict[str, Tensor]:
        """Features (B, D) of each kind of sentence, and what the orthogonality needs."""
        options, weights, config = self._options, self.weights, network.config
        template = config.template
        local = batch.image.new_zeros(len(batch.rows), 0, 0) if batch.local is None else batch.local
        words = network(noised(batch.image, options.noise) if options.noise else batch.image, local)
        if options.attribute_masking and words.attributes.shape[1]:
            words = words.without_some(options.attribute_masking)
        count = len(batch.rows)
        sentences: dict[str, list[Sentence]] = {"whole": [config.sentence()] * count}
        if weights.regularization_subject:
            sentences["subject"] = [template.pseudo_subject(caption.attribute) for caption in batch.captions]
        if weights.regularization_attributes and config.max_attributes:
            sentences["attributes"] = [template.pseudo_attributes(caption.subject) for caption in batch.captions]
        if batch.edited:
            sentences["composed"] = [config.sentence(text) for text in batch.modifications]
        together = [sentence for group in sentences.values() for sentence in group]
        reference_index = torch.arange(count).repeat(len(sentences))
        encoded = encode_sentences(self._encoder, together, words, reference_index)
        result = dict(zip(sentences, encoded.split(count), strict=True))
        if batch.edited:
            with torch.no_grad():
                result["edited"] = encode_sentences(self._encoder, [(text,) for text in batch.edited])
        return {**result, "selected": words.selected.float(), "count": words.counts.float()}

    def terms(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses by name."""
        options, weights = self._options, self.weights
        terms: dict[str, Tensor] = {}
        if weights.contrastive:
            contrast = losses.contrastive if options.contrast == "all" else losses.contrastive_across
            terms["contrastive"] = contrast(batch.image, outputs["whole"], self._temperature)
        if weights.orthogonality and outputs["selected"].shape[1]:
            terms["orthogonality"] = losses.orthogonality(outputs["selected"])
        for name in ("subject", "attributes", "whole"):
            if getattr(weights, f"regularization_{name}") and name in outputs:
                assert batch.real is not None
                terms[f"regularization_{name}"] = losses.regularization(outputs[name], batch.real)
        temperature = options.composed_temperature
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


_PAPER = TrainingConfig(caption_split="release", options=InversionOptions())
_COMPOSED = TrainingConfig(
    epochs=5, batch_size=32, learning_rate=1e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0, ema_decay=0.998,
    attribute_gain=6.0, bfloat16=True, network=NetworkConfig(dropout=0.1),
    options=InversionOptions(
        # The orthogonality of vectors without negative numbers is reached soonest by constant ones: with the paper's
        # weights the attributes of `mini` lost all that differs between images.
        weights=InversionWeights(
            contrastive=0.3, orthogonality=0.1, regularization_attributes=5.0,
            composed=2.0, composed_image=2.0, description=2.0,
        ),
        # Small batches make many steps; the whole set supplies the negatives that the composed losses then lack.
        extra_negatives=1024,
    ),
)  # fmt: skip


def _ablations(config: TrainingConfig) -> dict[str, TrainingConfig]:
    """The paper's ablations of a recipe: each takes one part away."""
    changes: dict[str, tuple[str, float | None]] = {
        "no-attributes": ("network.max_attributes", 0),
        "no-selection": ("network.threshold", None),
        "no-orthogonality": ("weights.orthogonality", 0.0),
        "no-subject-regularization": ("weights.regularization_subject", 0.0),
        "no-attributes-regularization": ("weights.regularization_attributes", 0.0),
        "no-whole-regularization": ("weights.regularization_whole", 0.0),
    }
    return {name: config.with_settings({setting: value}) for name, (setting, value) in changes.items()}


FTI4CIR = Learner(
    presets={
        "paper": _PAPER,
        "composed": _COMPOSED,
        **{f"paper-{name}": config for name, config in _ablations(_PAPER).items()},
        **{f"composed-{name}": config for name, config in _ablations(_COMPOSED).items()},
    },
    default="composed",
    objective=InversionObjective,
)
"""`paper`: the release's recipe. `composed`: ours, with composed and description losses, for small encoders and few
images. Each also with one part taken away, as `paper-no-selection`."""

METHOD = Entry(create=lambda model, options: Inversion("fti4cir", model), learner=FTI4CIR)
