"""Optimisation-based textual inversion, as SEARLE does it: the pseudo-word of each image, found without a network."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..backbones.base import DualEncoder
from ..inversion.compose import encode_sentences
from ..inversion.network import PseudoWords
from ..inversion.prompts import Sentence
from ..training import losses
from ._concepts import TEMPLATE, Concepts, pseudo_and_real, templates

_INVERSION_RATE = 2e-2
_INVERSION_DECAY = 0.01
_INVERSION_REGULARIZATION = 0.5
_INVERSION_DEVIATION = 0.02


@dataclass(frozen=True)
class Optimization:
    """How the word of an image is found."""

    steps: int = 60
    concepts: int = 5
    """Each step draws a sentence about one of this number of concepts nearest to the image."""
    average: float = 0.0
    """Decay of the exponential moving average of the word, which then is the result; 0: the last word."""
    start: Literal["mean", "random"] = "mean"
    """What a word begins as: the mean of all token embeddings, or Gaussian noise of deviation 0.02."""
    templates: Literal[1, 24] = 1
    """The number of sentences of which each step draws one."""

    @property
    def sentences(self) -> list[Sentence]:
        """In which the text tower shall see the image."""
        return [TEMPLATE.pseudo(with_attributes=False)] if self.templates == 1 else templates()


def invert(
    encoder: DualEncoder,
    image: Tensor,
    concepts: Concepts,
    optimization: Optimization,
    seeds: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Optimisation-based textual inversion: the word of each image in whose sentence the text tower sees it.

    An image's word depends on the image and its seed alone, not on the others beside it.

    Args:
        encoder: the frozen dual encoder.
        image: (B, D) image features.
        concepts: what keeps the words near to real ones.
        optimization: how.
        seeds: of the random choices of each image, numbers that are not negative; None: all make the same ones.

    Returns:
        (B, W) token embeddings.

    """
    # Evaluation composes in inference mode, in which nothing can be optimised, not even by leave of `enable_grad`.
    with torch.inference_mode(False), torch.enable_grad():
        image = image.clone()  # else one that was made in inference mode
        tokens = _start(encoder, optimization, seeds or [(0,)] * len(image)).to(image.device).requires_grad_()
        average = tokens.detach().clone()
        optimizer = torch.optim.AdamW([tokens], lr=_INVERSION_RATE, weight_decay=_INVERSION_DECAY)
        sentences = optimization.sentences
        nearest = concepts.nearest(image, optimization.concepts)
        for step in range(optimization.steps):
            generators = [random.Random(f"{list(seed)} {step}") for seed in seeds] if seeds else _alike(step, image)
            words = PseudoWords.of_subjects(tokens)
            chosen = [sentences[0] if len(sentences) == 1 else random_.choice(sentences) for random_ in generators]
            seen = encode_sentences(encoder, chosen, words)
            pseudo, real = pseudo_and_real(encoder, words, concepts.draw(nearest, generators))
            loss = losses.regularization(seen, image)
            loss = loss + _INVERSION_REGULARIZATION * losses.regularization(pseudo, real)
            optimizer.zero_grad()
            # Of the mean over the batch, so that an image's word does not depend on how many others there are.
            (loss * len(image)).backward()
            optimizer.step()
            average.lerp_(tokens.detach(), 1 - optimization.average)
    return average


def _alike(step: int, image: Tensor) -> list[random.Random]:
    return [random.Random(step) for _ in range(len(image))]


def _start(encoder: DualEncoder, optimization: Optimization, seeds: Sequence[Sequence[int]]) -> Tensor:
    """What the words (B, W) begin as, float32 whatever the tower is in."""
    if optimization.start == "random":
        drawn = [np.random.default_rng(list(seed)).normal(size=encoder.token_width) for seed in seeds]
        return torch.tensor(np.stack(drawn) * _INVERSION_DEVIATION, dtype=torch.float32)
    # From the middle of all words, which is as near to one as to another.
    middle = encoder.token_table().float().mean(dim=0).detach()
    return middle.expand(len(seeds), -1).clone()
