"""SEARLE-OTI: one pseudo-word an image, found by optimisation for each query, slow and without a network.

It needs the concepts that a model trained as `searle` keeps.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ModelError
from ..inversion.compose import encode_sentences
from ..inversion.network import PseudoWords
from ..models.queries import Queries
from ._concepts import CLASS_BLOCK, TEMPLATE, Concepts, class_features, class_names
from ._optimization import Optimization, invert
from .base import Entry, Model

_logger = logging.getLogger(__name__)
_REPORT_EVERY = 10.0
"""Seconds between lines of progress."""


class OptimizedInversion:
    """The optimisation itself for each reference image.

    It is done as the model's training did it by the published recipe; for a model of another recipe by 60 steps.

    Raises:
        ModelError: if the model was not trained as `searle`, whose concepts this needs.
    """

    name = "searle-oti"

    def __init__(self, model: Model, steps: int | None = None) -> None:
        said = model.extra.get("concepts")
        if not isinstance(said, dict):
            raise ModelError(
                f"{model.name} holds no concepts for searle-oti; train them with `fti4cir train --method searle "
                f"--backbone {model.encoder.name} --images FOLDER --captions FILE --output DIR` and give --model DIR."
            )
        self._encoder = model.encoder
        try:
            optimization = Optimization(**model.extra.get("optimization", {}))
        except TypeError as error:
            raise ModelError(
                f"{model.name} says how it was optimised in a way that this version does not know: {error}."
            ) from error
        self._optimization = optimization if steps is None else replace(optimization, steps=steps)
        self._said, self._vocabulary = said, model.extra.get("vocabulary", "captions")
        self._made: Concepts | None = None

    def _concepts(self) -> Concepts:
        """Made when first needed: the many sentences about Open Images' classes take minutes."""
        if self._made is None:
            if self._vocabulary == "captions":
                self._made = Concepts.of_captions(self._encoder, self._said)
            else:
                self._made = Concepts.of_open_images(self._class_features(), self._said)
        return self._made

    def _class_features(self) -> Tensor:
        blocks, reported = [], time.monotonic()
        for start in range(0, len(class_names()), CLASS_BLOCK):
            blocks.append(class_features(self._encoder, start, start + CLASS_BLOCK))
            if time.monotonic() - reported > _REPORT_EVERY:
                reported = time.monotonic()
                _logger.info("features of concepts for %s: %d of %d", self.name, start, len(class_names()))
        return torch.cat(blocks)

    def compose(self, queries: Queries) -> Tensor:
        """B queries to unit-length features (B, D)."""
        image = queries.features.image.to(self._encoder.device)
        tokens = invert(self._encoder, image, self._concepts(), self._optimization)
        rows = torch.tensor(list(queries.reference_index))
        sentences = [TEMPLATE.pseudo(text, with_attributes=False) for text in queries.texts]
        with torch.no_grad():
            return F.normalize(
                encode_sentences(self._encoder, sentences, PseudoWords.of_subjects(tokens), rows), dim=-1
            ).cpu()


METHOD = Entry(create=lambda model, options: OptimizedInversion(model), stands_on="searle")
