"""SEARLE: one pseudo-word an image, found by optimisation, and a network that learns to find it at once.

Baldrati, Agnolucci, Bertini, Del Bimbo, "Zero-Shot Composed Image Retrieval with Textual Inversion", ICCV 2023.
There a language model writes the sentences that keep a pseudo-word near to real ones; here the captions of the
training set take its place. `_concepts` says what these sentences are about, `_optimization` finds the words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..backbones.base import image_fingerprint
from ..features.matrix import compute_rows
from ..inversion.network import FineGrainedInversion, NetworkConfig
from ..training import losses
from ..training.config import Options, TrainingConfig, require_at_least_one, require_choices, require_shares
from ..training.losses import LossWeights
from ..training.objective import Batch, Corpus, Needs
from ._concepts import (
    CLASS_BLOCK,
    TEMPLATE,
    Concepts,
    captions_of_classes,
    class_features,
    class_names,
    collect,
    pseudo_and_real,
    templates,
)
from ._optimization import Optimization, invert
from .base import Entry, Learner
from .fti4cir import Inversion

_BLOCK = 128
"""Images whose words are optimised together."""
_DISTILLATION_TEMPERATURE = 0.25


@dataclass(frozen=True, kw_only=True)
class SearleWeights(LossWeights):
    """The weights of SEARLE's losses."""

    distillation: float = 1.0
    regularization_subject: float = 0.75
    """Towards a real sentence about a concept."""


@dataclass(frozen=True, kw_only=True)
class SearleOptions(Options):
    """The settings of `SearleObjective`."""

    weights: SearleWeights = field(default_factory=SearleWeights)
    vocabulary: Literal["captions", "open-images"] = "captions"
    """Where the concepts are from: subjects of the training captions, or the 20,931 class names of Open Images."""
    concepts: int = 5
    """How many of the concepts nearest to an image the network's training draws from."""
    inversion: Optimization = field(default_factory=Optimization)
    """The optimisation that finds the word of each training image."""

    def __post_init__(self) -> None:
        require_choices(self, {"vocabulary": ("captions", "open-images")})
        require_at_least_one(self, "concepts")
        require_at_least_one(self.inversion, "steps", "concepts")
        require_shares(self.inversion, "average")
        require_choices(self.inversion, {"start": ("mean", "random"), "templates": (1, 24)})


class SearleObjective:
    """Distillation of the optimised words into the network, with the other images' words as negatives."""

    needs = Needs()

    def __init__(self, config: TrainingConfig, corpus: Corpus) -> None:
        options = config.options_as(SearleOptions)
        self.weights = options.weights
        self._encoder, self._count = corpus.encoder, options.concepts
        encoder, rows, optimization = corpus.encoder, list(corpus.rows), options.inversion
        captions = [corpus.captions[row] for row in rows]
        made_of: list[Any] = [image_fingerprint(encoder), rows]
        seeds: list[tuple[int, int]] | None = None
        self.extra: Mapping[str, Any]
        if options.vocabulary == "captions":
            said = collect(captions)
            self.extra = {"concepts": said}
            self._concepts = Concepts.of_captions(encoder, said)
            made_of += [said, optimization.steps]
            if optimization != Optimization(optimization.steps):
                self.extra = {**self.extra, "optimization": asdict(optimization)}
                made_of.append(asdict(optimization))
        else:
            said = captions_of_classes(str(caption) for group in captions for caption in group)
            self.extra = {"concepts": said, "vocabulary": options.vocabulary, "optimization": asdict(optimization)}
            self._concepts = Concepts.of_open_images(_class_features(corpus), said)
            seeds = [(config.seed, row) for row in rows]
            made_of += [said, asdict(optimization), config.seed]

        def make(start: int, stop: int) -> Tensor:
            image = torch.from_numpy(corpus.image[rows[start:stop]]).to(encoder.device)
            return invert(encoder, image, self._concepts, optimization, seeds and seeds[start:stop])

        shape = (len(rows), encoder.token_width)
        label = "words by optimisation"
        self._tokens = compute_rows(
            corpus.cache, "inverted", made_of=made_of, shape=shape, block=_BLOCK, make=make, label=label
        )
        self._place = {row: place for place, row in enumerate(rows)}

    def outputs(self, network: FineGrainedInversion, batch: Batch) -> dict[str, Tensor]:
        """The network's words (B, W), and features (B, D) of a sentence with each and of the same in real words."""
        words = network(batch.image, batch.image.new_zeros(len(batch.rows), 0, 0))
        # From PyTorch's random numbers, as the dropout: the trainer has set them for this step.
        generators = [random.Random(seed) for seed in torch.randint(2**31, (len(batch.rows),)).tolist()]
        phrases = self._concepts.draw(self._concepts.nearest(batch.image, self._count), generators)
        pseudo, real = pseudo_and_real(self._encoder, words, phrases)
        return {"token": words.subject.float(), "subject": pseudo, "real": real}

    def terms(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The contrastive distillation, and the regularisation towards real words."""
        tokens = torch.from_numpy(self._tokens[[self._place[row] for row in batch.rows]]).to(batch.image.device)
        return {
            "distillation": losses.contrastive(tokens, outputs["token"], _DISTILLATION_TEMPERATURE),
            "regularization_subject": losses.regularization(outputs["subject"], outputs["real"]),
        }


def _class_features(corpus: Corpus) -> Tensor:
    """The features of Open Images' class names, kept with the corpus."""
    encoder, count = corpus.encoder, len(class_names())

    def make(start: int, stop: int) -> Tensor:
        return class_features(encoder, start, stop)

    made_of = [encoder.fingerprint, list(class_names()), [list(map(str, template)) for template in templates()]]
    shape, label = (count, encoder.joint_width), "features of concepts"
    rows = compute_rows(
        corpus.cache, "concepts", made_of=made_of, shape=shape, block=CLASS_BLOCK, make=make, label=label
    )
    return torch.from_numpy(np.array(rows)).to(encoder.device)


SEARLE = Learner(
    presets={
        "searle": TrainingConfig(
            method="searle",
            epochs=100,
            batch_size=256,
            learning_rate=1e-4,
            weight_decay=0.01,
            schedule="constant",
            bfloat16=True,
            network=NetworkConfig(max_attributes=0, dropout=0.5, template=TEMPLATE),
            options=SearleOptions(
                vocabulary="open-images",
                concepts=150,
                inversion=Optimization(steps=350, concepts=15, average=0.99, start="random", templates=24),
            ),
        ),
        "searle-quick": TrainingConfig(
            method="searle",
            epochs=5,
            batch_size=128,
            learning_rate=1e-4,
            schedule="constant",
            bfloat16=True,
            network=NetworkConfig(max_attributes=0, dropout=0.5, template=TEMPLATE),
            options=SearleOptions(inversion=Optimization(steps=20)),
        ),
    },
    default="searle",
    objective=SearleObjective,
)
"""`searle`: as published. `searle-quick`: ours, for small encoders and few images, which takes minutes. Figures that
are published with it hold only as long as it stays as it is."""

METHOD = Entry(create=lambda model, options: Inversion("searle", model), learner=SEARLE)
