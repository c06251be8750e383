"""What the training engine asks of a method that learns: an objective. The engine itself knows no method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backbones.base import DualEncoder
from ..captions.split import SplitCaption
from ..inversion.network import FineGrainedInversion
from .config import TrainingConfig
from .losses import LossWeights


@dataclass(frozen=True)
class Choice:
    """What Q composed sentences have to choose from: its own target each, the others' targets, and N more."""

    others: Tensor
    """(N, D) the features of the N more, not normalised."""
    same: Tensor
    """(Q, Q + N) bool: which targets and others say the same as a sentence's own target, and so are no wrong choice."""


@dataclass(frozen=True)
class Found:
    """For F of a batch's edited captions, an image that carries such a caption word for word."""

    places: list[int]
    """Which F of the batch's B they are."""
    image: Tensor
    """(F, D) the image features of the images, not normalised."""
    choice: Choice
    """Among images: the batch's own, and more of the set."""


@dataclass(frozen=True)
class Described:
    """A batch's own captions, as people would search them: without a template."""

    captions: Tensor
    """(B, D) their text features, not normalised."""
    choice: Choice
    """Among captions: the batch's, and more of the set."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an objective reads of a batch besides the image features and the captions; all else is not computed."""

    local: bool = False
    """`Batch.local`."""
    real: bool = False
    """`Batch.real`."""
    edits: bool = False
    """`Batch.modifications` and `Batch.edited`."""
    choice: bool = False
    """`Batch.choice`, which needs edits."""
    found: bool = False
    """`Batch.found`, which needs edits."""
    described: bool = False
    """`Batch.described`."""
    word_edits: float = 0.65
    """Share of the edits that exchange a word of a list where there is one; the others exchange a whole part."""
    extra_negatives: int = 0
    """Images and captions of the whole set, drawn for each step, which are added to the three choices."""

    @property
    def written(self) -> bool:
        """Whether the text features of captions as written are needed."""
        return self.choice or self.described


@dataclass(frozen=True)
class Batch:
    """B images with a caption each."""

    rows: list[int]
    """Their rows in the features and the captions."""
    captions: list[SplitCaption]
    image: Tensor
    """(B, D) image features, not normalised."""
    local: Tensor | None
    """(B, P, V) local features; None if they are not needed, and where only the losses are computed."""
    real: Tensor | None = None
    """(B, D) text features of the captions in the template, not normalised; None if they are not needed."""
    modifications: list[str] = field(default_factory=list)
    """An edit of each caption, in the words of a user; empty if they are not needed."""
    edited: list[str] = field(default_factory=list)
    """The captions after the edit."""
    choice: Choice | None = None
    """For the composed loss: among the batch's own captions, and more of the set."""
    found: Found | None = None
    """For the composed loss against images; None leaves it out."""
    described: Described | None = None
    """For the description loss; None leaves it out."""

    def part(self, start: int, stop: int) -> Batch:
        """The images from `start` to `stop`."""
        part = slice(start, stop)
        return replace(
            self,
            rows=self.rows[part],
            captions=self.captions[part],
            image=self.image[part],
            local=None if self.local is None else self.local[part],
            real=None if self.real is None else self.real[part],
            modifications=self.modifications[part],
            edited=self.edited[part],
            choice=None,
            found=None,
            described=None,
        )


@dataclass(frozen=True)
class Corpus:
    """All that there is to learn from."""

    encoder: DualEncoder
    image: NDArray[np.float32]
    """(N, D) image features, not normalised."""
    captions: Sequence[Sequence[SplitCaption]]
    """Of each of the N images."""
    rows: Sequence[int]
    """The images that are trained on."""
    cache: Path
    """A folder for what is computed once from all this."""


class Objective(Protocol):
    """What a method minimises.

    The two halves let the trainer spread a batch over devices, or pass it through the network in chunks, and
    still compute the losses, in which every image is the others' negative, on the whole of it.
    """

    needs: Needs
    """What it reads of a batch."""
    extra: Mapping[str, Any]
    """What the saved model holds besides the network, in types that JSON has."""

    @property
    def weights(self) -> LossWeights:
        """Its losses by name, with the weight of each."""
        ...

    def outputs(self, network: FineGrainedInversion, batch: Batch) -> dict[str, Tensor]:
        """All that the losses need of the network, by name: (B, ...) each, row i of image i alone."""
        ...

    def terms(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses by name, scalars in full precision; those of weight zero left out."""
        ...


def noised(features: Tensor, amount: float | Tensor) -> Tensor:
    """Features (B, D) with Gaussian noise whose length is about `amount`, a number or (B, 1), times their own."""
    noise = torch.randn_like(features) * features.norm(dim=-1, keepdim=True) / features.shape[-1] ** 0.5
    return features + amount * noise


MakeObjective = Callable[[TrainingConfig, Corpus], Objective]
"""Makes a method's objective, once the features of the corpus are known."""
